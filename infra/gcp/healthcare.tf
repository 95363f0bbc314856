# A dataset and a DICOM store of our own, unless one is named.
locals {
  own_store      = var.dicom_store == ""
  location       = coalesce(var.dataset_location, var.region)
  dicom_store    = local.own_store ? "projects/${var.project}/locations/${local.location}/datasets/${var.dataset}/dicomStores/${var.store}" : var.dicom_store
  dicom_parts    = split("/", local.dicom_store)
  dataset_id     = join("/", [local.dicom_parts[1], local.dicom_parts[3], local.dicom_parts[5]])
  dicom_store_id = join("/", [local.dataset_id, local.dicom_parts[7]])
}

resource "google_healthcare_dataset" "this" {
  count    = local.own_store ? 1 : 0
  project  = var.project
  name     = var.dataset
  location = local.location

  dynamic "encryption_spec" {
    for_each = local.dataset_key == "" ? [] : [local.dataset_key]
    content {
      kms_key_name = encryption_spec.value
    }
  }

  # Deleting a dataset deletes every scan in it. A plan that would do so fails: another region, name or key, or a
  # dicom_store that is named later. `deploy.sh --destroy` takes the dataset out of the state first, and keeps it.
  lifecycle {
    prevent_destroy = true
  }

  # What holds data is created after the functions are built: a project that may not build in this region can then use
  # another one, because nothing exists yet that cannot move.
  depends_on = [time_sleep.apis, time_sleep.keys, module.event_function, module.search, module.commands]
}

# No notification_config: outcomes say more than the store's own notices, and failures too.
resource "google_healthcare_dicom_store" "this" {
  count   = local.own_store ? 1 : 0
  name    = var.store
  dataset = google_healthcare_dataset.this[0].id

  lifecycle {
    prevent_destroy = true
  }
}
