# One gen2 HTTP function with an account of its own, and who may call it.
terraform {
  required_providers {
    google = { source = "hashicorp/google", version = "~> 6.50" }
    time   = { source = "hashicorp/time", version = "~> 0.13" }
  }
}

locals {
  # A Cloud Run service's name takes no underscores.
  name = "dicom-${replace(var.entry_point, "_", "-")}"
}

resource "google_service_account" "this" {
  project      = var.function.project
  account_id   = local.name
  display_name = "Runs the function ${local.name}"
}

# Cloud Run refuses a revision whose account may not read its secrets.
resource "google_secret_manager_secret_iam_member" "secrets" {
  for_each  = toset(values(var.secrets))
  project   = var.function.project
  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this.member
}

resource "time_sleep" "secrets" {
  count           = length(var.secrets) == 0 ? 0 : 1
  create_duration = var.function.grants_spread
  triggers        = { secrets = join(",", sort(distinct(values(var.secrets)))) }
  depends_on      = [google_secret_manager_secret_iam_member.secrets]
}

resource "google_cloudfunctions2_function" "this" {
  project     = var.function.project
  location    = var.function.region
  name        = local.name
  description = "DICOM Functions: ${var.entry_point}"

  build_config {
    runtime           = "python312"
    entry_point       = var.entry_point
    docker_repository = var.function.repository
    service_account   = var.function.build_account
    worker_pool       = var.function.worker_pool == "" ? null : var.function.worker_pool

    source {
      storage_source {
        bucket = var.function.source_bucket
        object = var.function.source_object
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.this.email
    available_cpu                    = var.size.cpu
    available_memory                 = var.size.memory
    min_instance_count               = var.size.min_instances
    max_instance_count               = var.size.max_instances
    max_instance_request_concurrency = var.size.concurrency
    timeout_seconds                  = var.function.timeout_seconds
    ingress_settings                 = var.ingress
    all_traffic_on_latest_revision   = true
    vpc_connector                    = var.function.vpc_connector == "" ? null : var.function.vpc_connector
    vpc_connector_egress_settings    = var.function.vpc_connector == "" ? null : var.function.vpc_egress

    # THREADS: functions-framework serves 4 requests a CPU by default; the rest would wait inside the instance.
    # LOG_EXECUTION_ID: on by default, it writes a line of the log in two parts, and lines of several requests mix.
    environment_variables = merge(var.environment, {
      THREADS          = tostring(var.size.concurrency)
      LOG_EXECUTION_ID = "false"
    })

    # Only names: Cloud Run reads the values when an instance starts.
    dynamic "secret_environment_variables" {
      for_each = var.secrets
      content {
        key        = secret_environment_variables.key
        project_id = var.function.project_number # an id would show as a change in every plan
        secret     = secret_environment_variables.value
        version    = "latest"
      }
    }
  }

  depends_on = [time_sleep.secrets]
}

# run.invoker belongs on the Cloud Run service: on the function it has no effect.
resource "google_cloud_run_v2_service_iam_member" "callers" {
  for_each = var.callers
  project  = var.function.project
  location = var.function.region
  name     = google_cloudfunctions2_function.this.name
  role     = "roles/run.invoker"
  member   = each.value
}
