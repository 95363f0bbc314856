# One page: what came in, its outcomes, how long they took, and what waits.
locals {
  user_metric = "logging.googleapis.com/user/dicom"
  run         = "resource.type=\"cloud_run_revision\""

  # title, metric filter, aligner, reducer and what to split by
  tiles = [
    ["Outcomes", "metric.type=\"${local.user_metric}/outcomes\" ${local.run}", "ALIGN_RATE", "REDUCE_SUM", ["metric.label.outcome"]],
    ["Why not: reasons", "metric.type=\"${local.user_metric}/outcomes\" ${local.run} metric.labels.reason!=\"\"", "ALIGN_RATE", "REDUCE_SUM", ["metric.label.reason"]],
    ["Time to outcome, 95th percentile (ms)", "metric.type=\"${local.user_metric}/duration\" ${local.run}", "ALIGN_DELTA", "REDUCE_PERCENTILE_95", ["metric.label.function"]],
    ["Bytes stored and exported", "metric.type=\"${local.user_metric}/bytes\" ${local.run}", "ALIGN_DELTA", "REDUCE_MEAN", ["metric.label.function"]],
    ["Messages waiting", "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" resource.type=\"pubsub_subscription\" (${local.is_waiting})", "ALIGN_MAX", "REDUCE_SUM", ["resource.label.subscription_id"]],
    ["Oldest message (s)", "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" resource.type=\"pubsub_subscription\" (${local.is_waiting})", "ALIGN_MAX", "REDUCE_MAX", ["resource.label.subscription_id"]],
    ["Dead letters held", "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" resource.type=\"pubsub_subscription\" (${local.is_held})", "ALIGN_MAX", "REDUCE_SUM", ["resource.label.subscription_id"]],
    ["Answers by status", local.requests, "ALIGN_RATE", "REDUCE_SUM", ["resource.label.service_name", "metric.label.response_code_class"]],
    ["Instances", "metric.type=\"run.googleapis.com/container/instance_count\" ${local.run} resource.labels.service_name=starts_with(\"dicom-\")", "ALIGN_MAX", "REDUCE_SUM", ["resource.label.service_name"]],
    ["Memory, 99th percentile", "metric.type=\"run.googleapis.com/container/memory/utilizations\" ${local.run} resource.labels.service_name=starts_with(\"dicom-\")", "ALIGN_DELTA", "REDUCE_PERCENTILE_99", ["resource.label.service_name"]],
  ]
}

locals {
  # The API does not return a position of 0: with one here, every plan would show a change.
  positions = [for index in range(length(local.tiles)) : {
    for axis, value in { xPos = index % 2 * 24, yPos = floor(index / 2) * 16 } : axis => value if value > 0
  }]
}

resource "google_monitoring_dashboard" "this" {
  project = var.project
  dashboard_json = jsonencode({
    displayName = "DICOM Functions"
    mosaicLayout = {
      columns = 48
      tiles = [for index, tile in local.tiles : merge(local.positions[index], {
        width  = 24
        height = 16
        widget = {
          title = tile[0]
          xyChart = {
            dataSets = [{
              plotType = "LINE"
              timeSeriesQuery = {
                timeSeriesFilter = {
                  filter = tile[1]
                  aggregation = {
                    alignmentPeriod    = "60s"
                    perSeriesAligner   = tile[2]
                    crossSeriesReducer = tile[3]
                    groupByFields      = tile[4]
                  }
                }
              }
            }]
          }
        }
      })]
    }
  })
  depends_on = [time_sleep.metrics]
}
