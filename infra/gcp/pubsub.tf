# The outcomes: one message for each input, kept in the ledger and open to further subscribers.
resource "google_pubsub_topic" "outcomes" {
  project      = var.project
  name         = local.topology.topics.outcomes
  kms_key_name = var.kms_key == "" ? null : var.kms_key

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [time_sleep.apis, time_sleep.keys]
}

resource "google_pubsub_topic" "outcomes_dead" {
  project      = var.project
  name         = local.topology.ledger_subscription.dead_letter_topic
  kms_key_name = var.kms_key == "" ? null : var.kms_key

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [time_sleep.apis, time_sleep.keys]
}

resource "google_pubsub_subscription" "outcomes_dead_hold" {
  project                    = var.project
  name                       = local.topology.ledger_subscription.dead_letter_subscription
  topic                      = google_pubsub_topic.outcomes_dead.id
  ack_deadline_seconds       = local.delivery.ack_deadline_s
  message_retention_duration = "${local.delivery.dead_letter_retention_s}s"

  expiration_policy {
    ttl = "" # never: what is held here is held nowhere else
  }
}

# Pub/Sub itself writes the ledger: no code of this system is between an outcome and its record.
resource "google_pubsub_subscription" "ledger" {
  project                    = var.project
  name                       = local.topology.ledger_subscription.name
  topic                      = google_pubsub_topic.outcomes.id
  ack_deadline_seconds       = local.delivery.ack_deadline_s
  message_retention_duration = "${local.delivery.retention_s}s"

  cloud_storage_config {
    bucket          = google_storage_bucket.data[local.topology.ledger_subscription.bucket].name
    filename_prefix = local.topology.ledger_subscription.filename_prefix
    filename_suffix = local.topology.ledger_subscription.filename_suffix
    max_duration    = "${local.topology.ledger_subscription.max_duration_s}s"
    max_bytes       = local.topology.ledger_subscription.max_bytes
  }

  retry_policy {
    minimum_backoff = "${local.delivery.minimum_backoff_s}s"
    maximum_backoff = "${local.delivery.maximum_backoff_s}s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.outcomes_dead.id
    max_delivery_attempts = local.topology.ledger_subscription.max_delivery_attempts
  }

  expiration_policy {
    ttl = ""
  }

  depends_on = [time_sleep.rights]
}
