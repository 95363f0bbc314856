# An event function: the function, the topics of its events and of its own follow-up messages (or a topic that is there
# already), the push subscriptions that call it, and the dead letters.
terraform {
  required_providers {
    google = { source = "hashicorp/google", version = "~> 6.50" }
  }
}

module "function" {
  source = "../function"

  entry_point = var.entry_point
  function    = var.function
  size        = var.size
  environment = var.environment
  secrets     = var.secrets
  ingress     = "ALLOW_INTERNAL_ONLY" # Pub/Sub of the same project counts as internal
  callers     = { delivery = var.pusher.member }
}

resource "google_pubsub_topic" "this" {
  for_each     = { for key, d in var.deliveries : key => d if d.own_topic }
  project      = var.function.project
  name         = each.value.topic
  kms_key_name = var.kms_key == "" ? null : var.kms_key

  message_storage_policy {
    allowed_persistence_regions = [var.function.region]
  }
}

resource "google_pubsub_topic" "dead" {
  for_each     = var.deliveries
  project      = var.function.project
  name         = each.value.dead_letter_topic
  kms_key_name = var.kms_key == "" ? null : var.kms_key

  message_storage_policy {
    allowed_persistence_regions = [var.function.region]
  }
}

# Without a subscription, dead letters would be lost.
resource "google_pubsub_subscription" "hold" {
  for_each                   = var.deliveries
  project                    = var.function.project
  name                       = each.value.dead_letter_subscription
  topic                      = google_pubsub_topic.dead[each.key].id
  ack_deadline_seconds       = var.delivery.ack_deadline_s
  message_retention_duration = "${var.delivery.dead_letter_retention_s}s"

  expiration_policy {
    ttl = "" # never: what is held here is held nowhere else
  }
}

resource "google_pubsub_subscription" "push" {
  for_each                   = var.deliveries
  project                    = var.function.project
  name                       = each.value.subscription
  topic                      = each.value.own_topic ? google_pubsub_topic.this[each.key].id : "projects/${var.function.project}/topics/${each.value.topic}"
  filter                     = each.value.filter == "" ? null : each.value.filter
  ack_deadline_seconds       = var.delivery.ack_deadline_s
  message_retention_duration = "${var.delivery.retention_s}s"

  push_config {
    push_endpoint = "${module.function.uri}${each.value.path}"

    oidc_token {
      service_account_email = var.pusher.email
      audience              = module.function.uri
    }
  }

  retry_policy {
    minimum_backoff = "${var.delivery.minimum_backoff_s}s"
    maximum_backoff = "${each.value.maximum_backoff_s}s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead[each.key].id
    max_delivery_attempts = each.value.max_delivery_attempts
  }

  expiration_policy {
    ttl = ""
  }

  lifecycle {
    precondition {
      condition     = var.delivery.budget_s < var.function.timeout_seconds && var.function.timeout_seconds < var.delivery.ack_deadline_s
      error_message = "The function must give up before it is stopped, and be stopped before its message comes again."
    }
  }

  depends_on = [google_pubsub_topic_iam_member.dead_letters]
}

# Pub/Sub moves dead letters with its own account: it must publish there, and acknowledge here.
resource "google_pubsub_topic_iam_member" "dead_letters" {
  for_each = var.deliveries
  project  = var.function.project
  topic    = google_pubsub_topic.dead[each.key].name
  role     = "roles/pubsub.publisher"
  member   = var.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letters" {
  for_each     = var.deliveries
  project      = var.function.project
  subscription = google_pubsub_subscription.push[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = var.pubsub_agent

  lifecycle {
    # A subscription that is replaced, as with another filter, has the same name and no bindings.
    replace_triggered_by = [google_pubsub_subscription.push[each.key].id]
  }
}

# Follow-up messages are trusted: nobody else publishes on their topic.
resource "google_pubsub_topic_iam_member" "follow_ups" {
  for_each = { for key, d in var.deliveries : key => d if key == "follow_ups" }
  project  = var.function.project
  topic    = google_pubsub_topic.this[each.key].name
  role     = "roles/pubsub.publisher"
  member   = module.function.member
}
