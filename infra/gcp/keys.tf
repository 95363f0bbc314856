# Customer-managed keys: which key is on what, and which of Google's own accounts may use it.
locals {
  dataset_key = var.dataset_kms_key == "" ? var.kms_key : var.dataset_kms_key

  key_grants = merge(
    var.kms_key == "" ? {} : {
      storage = { key = var.kms_key, member = local.storage_agent }
      pubsub  = { key = var.kms_key, member = local.pubsub_agent }
    },
    local.dataset_key == "" || !local.own_store ? {} : {
      healthcare = { key = local.dataset_key, member = local.healthcare_agent }
    }
  )
}

resource "google_kms_crypto_key_iam_member" "agents" {
  for_each      = local.key_grants
  crypto_key_id = each.value.key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value.member
  depends_on = [
    data.google_storage_project_service_account.gcs,
    google_project_service_identity.pubsub,
    google_project_service_identity.healthcare,
  ]
}

# A bucket, topic or dataset with a key is refused until its service agent's permission has spread.
resource "time_sleep" "keys" {
  count           = length(local.key_grants) == 0 ? 0 : 1
  create_duration = local.grants_spread
  triggers        = { keys = join(",", [for grant in local.key_grants : grant.key]) }
  depends_on      = [google_kms_crypto_key_iam_member.agents]
}
