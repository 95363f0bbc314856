# Metrics from the one log line of each outcome, and what is kept out of the request log.
locals {
  service_filter = "resource.type=\"cloud_run_revision\" resource.labels.service_name=~\"^dicom-\""
  outcome_filter = "${local.service_filter} jsonPayload.event=\"outcome\""

  outcome_labels = ["function", "outcome", "reason"]
  counters = {
    outcomes     = { filter = local.outcome_filter, labels = local.outcome_labels, text = "Outcomes, by function, outcome and reason" }
    unauthorized = { filter = "${local.service_filter} jsonPayload.reason=\"unauthorized\"", labels = ["function"], text = "Calls that were refused for want of a permission" }
    bugs         = { filter = "${local.service_filter} jsonPayload.event=\"bug\"", labels = ["function"], text = "Errors that the code does not know" }
    memory       = { filter = "${local.service_filter} severity>=ERROR textPayload:\"Memory limit of\"", labels = [], text = "Instances that ran out of memory" }
  }
  distributions = {
    duration = { field = "duration_ms", unit = "ms", text = "Time from delivery to outcome", scale = 10 }
    bytes    = { field = "bytes", unit = "By", text = "Size of what was stored or exported", scale = 1024 }
  }
}

resource "google_logging_metric" "counters" {
  for_each    = local.counters
  project     = var.project
  name        = "dicom/${each.key}"
  description = each.value.text
  filter      = each.value.filter

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    dynamic "labels" {
      for_each = each.value.labels
      content {
        key        = labels.value
        value_type = "STRING"
      }
    }
  }

  label_extractors = { for label in each.value.labels : label => "EXTRACT(jsonPayload.${label})" }
  depends_on       = [time_sleep.apis]
}

resource "google_logging_metric" "distributions" {
  for_each        = local.distributions
  project         = var.project
  name            = "dicom/${each.key}"
  description     = each.value.text
  filter          = "${local.outcome_filter} jsonPayload.${each.value.field}>0"
  value_extractor = "EXTRACT(jsonPayload.${each.value.field})"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = each.value.unit

    labels {
      key        = "function"
      value_type = "STRING"
    }
  }

  label_extractors = { function = "EXTRACT(jsonPayload.function)" }

  bucket_options {
    exponential_buckets {
      num_finite_buckets = 40
      growth_factor      = 2
      scale              = each.value.scale
    }
  }

  depends_on = [time_sleep.apis]
}

# Cloud Run logs the whole URL of a request, and a search's query may hold a patient's name.
resource "google_logging_project_exclusion" "search_queries" {
  project     = var.project
  name        = "dicom-search-queries"
  description = "Requests to search with a query in the URL"
  filter      = "resource.type=\"cloud_run_revision\" resource.labels.service_name=\"dicom-search\" httpRequest.requestUrl:\"?\""
  depends_on  = [time_sleep.apis]
}

resource "google_project_iam_audit_config" "healthcare" {
  count   = var.audit_logs ? 1 : 0
  project = var.project
  service = "healthcare.googleapis.com"

  audit_log_config {
    log_type = "DATA_READ"
  }
  audit_log_config {
    log_type = "DATA_WRITE"
  }
}
