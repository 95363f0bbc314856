terraform {
  required_version = ">= 1.9"

  # Exact, so that the same code makes the same plan. deploy.sh keeps the lock file, with the checksums of the first
  # download, beside the state of each deployment. docs/deploy.md says what version 7 of google changes.
  required_providers {
    google      = { source = "hashicorp/google", version = "6.50.0" }
    google-beta = { source = "hashicorp/google-beta", version = "6.50.0" }
    archive     = { source = "hashicorp/archive", version = "2.7.1" }
    time        = { source = "hashicorp/time", version = "0.13.1" }
  }

  # deploy.sh creates the bucket and names it; `terraform init -backend-config=bucket=NAME` by hand.
  backend "gcs" {
    prefix = "dicom-functions"
  }
}

provider "google" {
  project               = var.project
  region                = var.region
  billing_project       = var.project
  user_project_override = true
  default_labels        = local.labels
}

provider "google-beta" {
  project               = var.project
  region                = var.region
  billing_project       = var.project
  user_project_override = true
}
