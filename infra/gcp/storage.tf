# Every bucket has uniform access (no ACLs of single objects), and is never public, whatever a binding says.
# No versioning: names are seldom reused, each generation has its own event, and old versions would be scans
# that nobody sees. Soft delete restores what was deleted by mistake.
locals {
  buckets = {
    landing    = { soft_delete_days = 7, cold_after_days = 0 }
    quarantine = { soft_delete_days = 30, cold_after_days = 0 } # waits for people
    export     = { soft_delete_days = 0, cold_after_days = 0 }  # copies, which can be exported again
    ledger     = { soft_delete_days = 7, cold_after_days = 90 } # seldom read, never deleted
    state      = { soft_delete_days = 0, cold_after_days = 0 }  # work in progress, of no use once it is done
  }
}

# State of work that was broken off is deleted, but later than a dead letter: one that is sent again finds its state.
# That a webhook has ended (`webhooks/`) stays until somebody deletes it.
locals {
  retention_days = merge(var.retention_days, { state = local.topology.state_expires_days })
  expiring       = { state = ["pairs/", "exports/", "requests/", "studies/"] }
}

resource "google_storage_bucket" "data" {
  for_each = local.buckets

  project                     = var.project
  name                        = local.bucket_names[each.key]
  location                    = upper(var.region)
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  soft_delete_policy {
    retention_duration_seconds = each.value.soft_delete_days * 86400
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  dynamic "lifecycle_rule" {
    for_each = lookup(local.retention_days, each.key, 0) > 0 ? [local.retention_days[each.key]] : []
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value
        matches_prefix = lookup(local.expiring, each.key, null)
      }
    }
  }

  # What an export that was broken off left of a zip or of metadata.ndjson, whatever the destination's prefix.
  dynamic "lifecycle_rule" {
    for_each = each.key == "export" ? [local.topology.state_expires_days] : []
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value
        matches_suffix = [".export-part"]
      }
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.cold_after_days > 0 ? [each.value.cold_after_days] : []
    content {
      action {
        type          = "SetStorageClass"
        storage_class = "NEARLINE"
      }
      condition {
        age = lifecycle_rule.value
      }
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key == "" ? [] : [var.kms_key]
    content {
      default_kms_key_name = encryption.value
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  # After the functions: see the dataset in healthcare.tf.
  depends_on = [time_sleep.apis, time_sleep.keys, module.event_function, module.search, module.commands]
}

# The event that starts everything. Cloud Storage sends at least once; the store function is idempotent.
resource "google_storage_notification" "uploads" {
  bucket         = google_storage_bucket.data["landing"].name
  payload_format = "JSON_API_V1"
  topic          = module.event_function["store_upload"].topic_id
  event_types    = ["OBJECT_FINALIZE"]
  depends_on     = [time_sleep.rights]
}

# --- the source archive -------------------------------------------------------------------

locals {
  root         = "${path.module}/../.."
  functions    = [for f in fileset(local.root, "functions/**") : f if !strcontains(f, "__pycache__")]
  source_files = sort(concat(["main.py", "requirements.txt"], local.functions))
  source_hash  = sha256(join("\n", [for f in local.source_files : "${f} ${filesha256("${local.root}/${f}")}"]))
}

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${local.bucket_prefix}dicom-source"
  location                    = upper(var.region)
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # archives of the code, made again from the repository

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  depends_on = [time_sleep.apis]
}

# The archive holds these files and nothing else. Its name is the hash of its contents: new code makes a new object and a
# new revision, the same code no change.
data "archive_file" "source" {
  type             = "zip"
  output_path      = "${path.root}/.build/source-${local.source_hash}.zip"
  output_file_mode = "0644"

  dynamic "source" {
    for_each = local.source_files
    content {
      filename = source.value
      content  = file("${local.root}/${source.value}")
    }
  }
}

resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.source.name
  name   = "${local.source_hash}.zip"
  source = data.archive_file.source.output_path
}
