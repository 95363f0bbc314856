# How the functions are built. In new projects Google's default account has no permissions, so this one is our own.
locals {
  own_build     = var.build_service_account == ""
  build_email   = local.own_build ? google_service_account.build[0].email : var.build_service_account
  build_member  = "serviceAccount:${local.build_email}"
  build_account = "projects/${var.project}/serviceAccounts/${local.build_email}"
  # Cloud Functions copies the archive to a bucket of its own, which it creates on the first deployment.
  build_bucket = "projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-${var.region}"
}

resource "google_artifact_registry_repository" "functions" {
  project       = var.project
  location      = var.region
  repository_id = "dicom-functions"
  format        = "DOCKER"
  description   = "Images of the functions: code only, no data"

  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"
    most_recent_versions {
      keep_count = 5
    }
  }
  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      older_than = "7776000s"
    }
  }

  depends_on = [time_sleep.apis]
}

resource "google_service_account" "build" {
  count        = local.own_build ? 1 : 0
  project      = var.project
  account_id   = "dicom-build"
  display_name = "Builds the functions"
  depends_on   = [time_sleep.apis]
}

resource "google_artifact_registry_repository_iam_member" "build" {
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.functions.name
  role       = "roles/artifactregistry.writer"
  member     = local.build_member
}

resource "google_storage_bucket_iam_member" "build_source" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = local.build_member
}

# The only bindings on the project. Writing logs can be granted nowhere else, and the bucket that Cloud Functions
# copies archives to does not exist yet; the condition keeps the account out of every other bucket.
resource "google_project_iam_member" "build_logs" {
  count   = local.own_build ? 1 : 0
  project = var.project
  role    = "roles/logging.logWriter"
  member  = local.build_member
}

resource "google_project_iam_member" "build_archives" {
  count   = local.own_build ? 1 : 0
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = local.build_member

  condition {
    title      = "archives of functions only"
    expression = "resource.name.startsWith(\"${local.build_bucket}\")"
  }
}

# A build that starts before its permissions have spread fails.
resource "time_sleep" "build_grants" {
  create_duration = local.grants_spread
  triggers        = { account = local.build_email }
  depends_on = [
    google_artifact_registry_repository_iam_member.build,
    google_storage_bucket_iam_member.build_source,
    google_project_iam_member.build_logs,
    google_project_iam_member.build_archives,
  ]
}
