# Alerts, a dashboard, and the budget.
locals {
  channels = concat(var.notification_channels, google_monitoring_notification_channel.email[*].id)
  holds = concat(
    [for d in local.deliveries : d.dead_letter_subscription],
    [local.topology.ledger_subscription.dead_letter_subscription]
  )
  # A webhook's subscription waits for somebody else's receiver: it has an alert of its own.
  ours       = concat([for d in concat(local.events, local.follow_ups) : d.subscription], [local.topology.ledger_subscription.name])
  theirs     = [for d in local.webhook_deliveries : d.subscription]
  is_held    = "resource.labels.subscription_id=monitoring.regex.full_match(\"${join("|", local.holds)}\")"
  is_ours    = "resource.labels.subscription_id=monitoring.regex.full_match(\"${join("|", local.ours)}\")"
  is_theirs  = "resource.labels.subscription_id=monitoring.regex.full_match(\"${join("|", local.theirs)}\")"
  is_waiting = "resource.labels.subscription_id=monitoring.regex.full_match(\"${join("|", concat(local.ours, local.theirs))}\")"
  requests   = "metric.type=\"run.googleapis.com/request_count\" resource.type=\"cloud_run_revision\" resource.labels.service_name=starts_with(\"dicom-\")"

  # 503 is how watch_studies waits, and how notify says that a receiver failed, which has an alert of its own.
  judged = "${local.requests} NOT resource.labels.service_name=monitoring.regex.full_match(\"dicom-watch-studies|dicom-notify\")"

  webhook_alerts = length(var.webhooks) == 0 ? {} : {
    webhook = {
      title     = "A webhook has failed for an hour"
      filter    = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" resource.type=\"pubsub_subscription\" (${local.is_theirs})"
      above     = 3600
      duration  = 0
      aligner   = "ALIGN_MAX"
      period    = 300
      per       = ["resource.label.subscription_id"]
      runbook   = "Its receiver does not answer 2xx within 10 s: the log of dicom-notify has a line `webhook` with the status of each call. The calls wait and are made again, 100 times at most; docs/webhooks.md."
      divide_by = null
    }
  }

  # The metric, the threshold, for how long, and what to do. `aligner` reduces each period to one number.
  alerts = merge(local.webhook_alerts, {
    dead_letters = {
      title     = "Messages were given up (dead letters)"
      filter    = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" resource.type=\"pubsub_subscription\" (${local.is_held})"
      above     = 0
      duration  = 0
      aligner   = "ALIGN_MAX"
      period    = 60
      per       = ["resource.label.subscription_id"]
      runbook   = "Find out why with `dicom-functions doctor` and the log of the function; then send them again with `dicom-functions replay dead-letters` (all of them; `--function` for one function's or the ledger's)."
      divide_by = null
    }
    oldest_message = {
      title     = "A message has waited for more than an hour"
      filter    = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" resource.type=\"pubsub_subscription\" (${local.is_ours})"
      above     = 3600
      duration  = 300
      aligner   = "ALIGN_MAX"
      period    = 300
      per       = ["resource.label.subscription_id"]
      runbook   = "The function is failing (look at its log), or too small for the load: docs/scale.md says what to change."
      divide_by = null
    }
    quarantine = {
      title     = "The quarantine grows"
      filter    = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.counters["outcomes"].name}\" resource.type=\"cloud_run_revision\" metric.labels.function=\"store_upload\" metric.labels.outcome=monitoring.regex.full_match(\"rejected|conflict\")"
      above     = 20
      duration  = 0
      aligner   = "ALIGN_SUM"
      period    = 3600
      per       = ["metric.label.reason"]
      runbook   = "Look in the quarantine bucket under the reason; each object has a .reason.json beside it."
      divide_by = null
    }
    server_errors = {
      title     = "More than 5 % of requests fail"
      filter    = "${local.judged} metric.labels.response_code_class=\"5xx\""
      above     = 0.05
      duration  = 1800 # half a pair is handed back for some minutes while it waits for the other half: no fault
      aligner   = "ALIGN_RATE"
      period    = 300
      per       = ["resource.label.service_name"]
      runbook   = "503 hands a message back to Pub/Sub and costs nothing; when it lasts, the store is busy or refuses: see the log for `handed_back`."
      divide_by = local.judged
    }
    out_of_memory = {
      title     = "An instance ran out of memory"
      filter    = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.counters["memory"].name}\" resource.type=\"cloud_run_revision\""
      above     = 0
      duration  = 0
      aligner   = "ALIGN_SUM"
      period    = 300
      per       = ["resource.label.service_name"]
      runbook   = "Memory does not grow with a scan's size: lower `concurrency` or raise `memory` of that function, and report it."
      divide_by = null
    }
    unauthorized = {
      title     = "A function lacks a permission"
      filter    = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.counters["unauthorized"].name}\" resource.type=\"cloud_run_revision\""
      above     = 0
      duration  = 0
      aligner   = "ALIGN_SUM"
      period    = 300
      per       = ["metric.label.function"]
      runbook   = "`dicom-functions doctor` names the permission and the resource. Messages wait and are delivered again."
      divide_by = null
    }
    bugs = {
      title     = "An unexpected error"
      filter    = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.counters["bugs"].name}\" resource.type=\"cloud_run_revision\""
      above     = 0
      duration  = 0
      aligner   = "ALIGN_SUM"
      period    = 300
      per       = ["metric.label.function"]
      runbook   = "The log line `bug` has the type and the place in the code; please report both."
      divide_by = null
    }
  })
}

resource "google_monitoring_notification_channel" "email" {
  count        = var.alert_email == "" ? 0 : 1
  project      = var.project
  display_name = "DICOM Functions"
  type         = "email"
  labels       = { email_address = var.alert_email }
  depends_on   = [time_sleep.apis]
}

# Monitoring knows a log-based metric some time after it is created.
resource "time_sleep" "metrics" {
  create_duration = "30s"
  triggers        = { metrics = join(",", [for m in google_logging_metric.counters : m.name]) }
}

resource "google_monitoring_alert_policy" "alerts" {
  for_each              = local.alerts
  project               = var.project
  display_name          = "DICOM Functions: ${each.value.title}"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = each.value.title
    condition_threshold {
      filter             = each.value.filter
      denominator_filter = each.value.divide_by
      comparison         = "COMPARISON_GT"
      threshold_value    = each.value.above
      duration           = "${each.value.duration}s"

      aggregations {
        alignment_period     = "${each.value.period}s"
        per_series_aligner   = each.value.aligner
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = each.value.per
      }

      dynamic "denominator_aggregations" {
        for_each = each.value.divide_by == null ? [] : [each.value]
        content {
          alignment_period     = "${each.value.period}s"
          per_series_aligner   = each.value.aligner
          cross_series_reducer = "REDUCE_SUM"
          group_by_fields      = each.value.per
        }
      }
    }
  }

  documentation {
    content   = each.value.runbook
    mime_type = "text/markdown"
  }

  depends_on = [time_sleep.metrics]
}

resource "google_billing_budget" "monthly" {
  count           = var.budget > 0 ? 1 : 0
  billing_account = var.billing_account
  display_name    = "DICOM Functions in ${var.project}"

  budget_filter {
    projects = ["projects/${data.google_project.this.number}"]
  }
  amount {
    specified_amount {
      units = tostring(floor(var.budget))
    }
  }
  dynamic "threshold_rules" {
    for_each = [0.5, 0.9, 1.0]
    content {
      threshold_percent = threshold_rules.value
    }
  }
  dynamic "all_updates_rule" {
    for_each = length(local.channels) > 0 ? [local.channels] : []
    content {
      monitoring_notification_channels = all_updates_rule.value
    }
  }

  depends_on = [time_sleep.apis]
}
