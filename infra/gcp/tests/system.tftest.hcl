# No credentials and no network: the providers are mocked, their schemas are not. Plans only: what was applied could not
# be taken down again, as the buckets and the dataset may never be destroyed.
mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "424242424242" }
  }
}
mock_provider "google-beta" {}
mock_provider "time" {}
# archive is not mocked: it is to zip the functions.

variables {
  project = "demo-project"
}

run "defaults" {
  command = plan
  assert {
    condition     = google_storage_bucket.data["landing"].name == "demo-project-dicom-landing"
    error_message = "Buckets are named after the project."
  }
  assert {
    condition     = output.system.dicom_store == "projects/demo-project/locations/us-central1/datasets/dicom-functions/dicomStores/scans"
    error_message = "A DICOM store of our own."
  }
  assert {
    condition     = google_storage_notification.uploads.bucket == google_storage_bucket.data["landing"].name
    error_message = "The landing bucket starts it all."
  }
  assert {
    condition     = google_storage_bucket_object.source.name == "${output.system.source}.zip"
    error_message = "The archive is named by the hash of what is in it."
  }
  assert {
    condition     = length(google_billing_budget.monthly) + length(google_project_iam_audit_config.healthcare) + length(google_kms_crypto_key_iam_member.agents) == 0
    error_message = "Switches are off."
  }
  assert {
    condition     = !contains(output.roles.dicomStoreWriter, "healthcare.dicomStores.dicomWebDelete")
    error_message = "The store function can not delete."
  }
}

run "everything_on" {
  command = plan
  variables {
    dicom_store           = "projects/demo-project/locations/europe-west4/datasets/clinic/dicomStores/pacs"
    bucket_prefix         = "hospital-"
    conflict_policy       = "reject, incoming/=overwrite"
    source_disposition    = "move"
    move_destination      = "gs://done-bucket/scans"
    delete_stores         = ["projects/demo-project/locations/europe-west4/datasets/research/dicomStores/mri"]
    search_exports        = true
    search_callers        = ["group:readers@example.org", "allUsers"]
    search_public         = true
    uploaders             = ["group:modalities@example.org"]
    command_publishers    = { deletes = ["user:a@example.org"], exports = ["user:a@example.org"] }
    export_destinations   = ["gs://research-bucket/in"]
    build_service_account = "builder@demo-project.iam.gserviceaccount.com"
    kms_key               = "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/k"
    audit_logs            = true
    alert_email           = "oncall@example.org"
    billing_account       = "000000-000000-000000"
    budget                = 500
    retention_days        = { export = 30 }
    vpc_connector         = "projects/demo-project/locations/us-central1/connectors/c"
    functions             = { store_upload = { max_instances = 100 } }
  }

  assert {
    condition     = length(google_healthcare_dataset.this) == 0 && google_healthcare_dataset_iam_member.operations.dataset_id == "demo-project/europe-west4/clinic"
    error_message = "An existing DICOM store is used, not made."
  }
  assert {
    condition     = contains(output.roles.dicomStoreWriter, "healthcare.dicomStores.dicomWebDelete")
    error_message = "To overwrite is to delete first."
  }
  assert {
    condition     = google_storage_bucket_iam_member.move_destination[0].bucket == "done-bucket"
    error_message = "What is moved is written there."
  }
  assert {
    condition     = length(google_healthcare_dataset_iam_member.delete_stores) == 1 && length(google_healthcare_dicom_store_iam_member.delete_stores) == 1
    error_message = "Deletes in other stores are followed too."
  }
  assert {
    condition     = google_storage_bucket.data["export"].encryption[0].default_kms_key_name == var.kms_key
    error_message = "The key is everywhere that data is."
  }
  assert {
    condition     = length(google_project_iam_member.build_logs) + length(google_project_iam_member.build_archives) == 0
    error_message = "With a build account of yours nothing is bound on the project."
  }
  assert {
    condition     = length(setsubtract(["cloudkms.googleapis.com", "billingbudgets.googleapis.com"], local.services)) == 0
    error_message = "What a switch needs is enabled with it."
  }
  assert {
    condition     = google_billing_budget.monthly[0].amount[0].specified_amount[0].units == "500"
    error_message = "The budget."
  }
}

# New projects may build in some regions only, and not every one of these has the Healthcare API.
run "dataset_elsewhere" {
  command = plan
  variables {
    region           = "europe-west1"
    dataset_location = "eu"
    kms_key          = "projects/keys/locations/europe-west1/keyRings/r/cryptoKeys/k"
    dataset_kms_key  = "projects/keys/locations/europe/keyRings/r/cryptoKeys/d"
    worker_pool      = "projects/builds/locations/europe-west1/workerPools/w"
  }
  assert {
    condition     = google_healthcare_dataset.this[0].encryption_spec[0].kms_key_name == var.dataset_kms_key
    error_message = "The dataset has a key where it is."
  }
  assert {
    condition     = google_kms_crypto_key_iam_member.agents["healthcare"].crypto_key_id == var.dataset_kms_key
    error_message = "The Healthcare API may use the dataset's key."
  }
  assert {
    condition     = google_kms_crypto_key_iam_member.agents["storage"].crypto_key_id == var.kms_key
    error_message = "Cloud Storage may use the key of the buckets."
  }
  assert {
    condition     = time_sleep.keys[0].create_duration == "180s"
    error_message = "Nothing with a key is created before the grants have spread."
  }
}

run "foreign_store" {
  command = plan
  variables {
    dicom_store = "projects/another-project/locations/us/datasets/d/dicomStores/s"
  }
  expect_failures = [google_project_iam_custom_role.roles]
}

# What used to be found by the function's container only.
run "refused_settings" {
  command = plan
  variables {
    conflict_policy  = "keep, a/=rejct"
    storage_class    = "FROZEN"
    move_destination = "gs://demo-project-dicom-landing/done"
    functions        = { store_upload = { min_instances = 30 } } # of 10
    kms_key          = "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/k"
    dataset_location = "eu" # where that key is not
    vpc_connector    = "short-name"
    worker_pool      = "short-name"
  }
  expect_failures = [
    var.conflict_policy, var.storage_class, var.move_destination, var.functions, var.dataset_kms_key,
    var.vpc_connector, var.worker_pool,
  ]
}

# Everything that is refused before anything is looked at, in one run.
run "refused" {
  command = plan
  variables {
    source_disposition = "move"       # to nowhere
    search_callers     = ["allUsers"] # by accident
    budget             = 10           # on no account
    kms_key            = "projects/keys/locations/europe-west4/keyRings/r/cryptoKeys/k"
    functions          = { store = { max_instances = 1 } }
    retention_days     = { landing = -1 }
    extra_environment  = { nothing = {} }
    command_publishers = { uploads = [] }
  }
  expect_failures = [
    var.move_destination, var.search_callers, var.budget, var.kms_key, var.functions, var.retention_days,
    var.extra_environment, var.command_publishers,
  ]
}

run "refused_members" {
  command = plan
  variables {
    uploaders          = ["allAuthenticatedUsers"]
    command_publishers = { deletes = ["user:a@example.org"], exports = ["allUsers"] }
  }
  expect_failures = [var.uploaders, var.command_publishers]
}

run "retention_in_order" {
  command = plan
  variables {
    retention_days = { landing = 35, ledger = 36 }
  }
}

run "landing_deleted_before_its_dead_letters" {
  command = plan
  variables {
    retention_days = { landing = 34 }
  }
  expect_failures = [var.retention_days]
}

run "ledger_deleted_before_landing" {
  command = plan
  variables {
    retention_days = { landing = 90, ledger = 90 }
  }
  expect_failures = [var.retention_days]
}

run "ledger_deleted_and_landing_kept" {
  command = plan
  variables {
    retention_days = { ledger = 365 }
  }
  expect_failures = [var.retention_days]
}
