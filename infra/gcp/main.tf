# Names and numbers are those of infra/topology.json, which the local stack reads too.
locals {
  topology = jsondecode(file("${path.module}/../topology.json"))
  delivery = local.topology.delivery
  function_names = concat(
    keys(local.topology.functions), local.topology.http_functions,
    keys(local.topology.optional.functions), local.topology.optional.http_functions
  )
  labels = merge({ app = "dicom-functions" }, var.labels)
  # A new permission is known everywhere after two minutes as a rule, sometimes after seven or more.
  grants_spread = "180s"

  bucket_prefix = coalesce(var.bucket_prefix, "${var.project}-")
  bucket_names  = { for key, name in local.topology.buckets : key => "${local.bucket_prefix}${name}" }
  topic_ids     = { for key, name in local.topology.topics : key => "projects/${var.project}/topics/${name}" }

  services = toset(concat([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "healthcare.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com", # the doctor impersonates the accounts
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "storage.googleapis.com",
    ],
    # Calls about a key or a budget are counted on this project, wherever those are.
    length(local.key_grants) == 0 ? [] : ["cloudkms.googleapis.com"],
    var.budget > 0 ? ["billingbudgets.googleapis.com"] : [],
    length(var.webhooks) == 0 ? [] : ["secretmanager.googleapis.com"],
  ))
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "apis" {
  for_each           = local.services
  project            = var.project
  service            = each.key
  disable_on_destroy = false
}

# A service that has just been enabled refuses its first calls for some seconds.
resource "time_sleep" "apis" {
  create_duration = "30s"
  triggers        = { services = join(",", local.services) }
  depends_on      = [google_project_service.apis]
}

# Google's service agents, which exist only after they are asked for.
data "google_storage_project_service_account" "gcs" {
  project    = var.project
  depends_on = [time_sleep.apis]
}

resource "google_project_service_identity" "pubsub" {
  provider   = google-beta
  project    = var.project
  service    = "pubsub.googleapis.com"
  depends_on = [time_sleep.apis]
}

resource "google_project_service_identity" "healthcare" {
  provider   = google-beta
  project    = var.project
  service    = "healthcare.googleapis.com"
  depends_on = [time_sleep.apis]
}

locals {
  pubsub_agent     = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
  healthcare_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-healthcare.iam.gserviceaccount.com"
  storage_agent    = "serviceAccount:service-${data.google_project.this.number}@gs-project-accounts.iam.gserviceaccount.com"
}
