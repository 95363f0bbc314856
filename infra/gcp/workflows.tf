# The functions that are off unless asked for: `commands`, `notify` and `watch_studies` (docs/webhooks.md).
locals {
  optional = local.topology.optional
  # The search page asks what became of its exports and uploads.
  page_asks        = var.search_exports || var.search_uploads
  keeping_requests = var.commands || local.page_asks
  notifying        = local.keeping_requests || length(var.webhooks) > 0
  ordering         = length(var.on_study_complete) > 0

  asked_for = {
    watch_studies = var.watch_studies
    notify        = local.notifying
  }

  # The words of functions/common/events/outcomes.py.
  outcomes = [
    "stored", "duplicate", "conflict", "rejected", "superseded", "deleted", "exported", "partial", "dry_run",
    "study_complete", "skipped",
  ]
}

# --- what calls the event functions -----------------------------------------------------------

locals {
  event_functions = merge(
    local.topology.functions,
    { for f, item in local.optional.functions : f => item if local.asked_for[f] }
  )
  topics = merge(local.topology.topics, local.optional.topics)

  # One for each push subscription. `own_topic`: made with the function, and not the outcomes' topic.
  events = [for f, item in local.event_functions : {
    function                 = f
    key                      = "events"
    topic                    = local.topics[item.topic]
    own_topic                = contains(keys(local.topology.functions), f)
    path                     = try(item.path, "")
    filter                   = try(item.filter, "")
    subscription             = item.subscription
    dead_letter_topic        = item.dead_letter_topic
    dead_letter_subscription = item.dead_letter_subscription
    max_delivery_attempts    = item.max_delivery_attempts
    maximum_backoff_s        = local.delivery.maximum_backoff_s
  } if f != "notify" || local.keeping_requests] # else nobody reads what it keeps of requests

  follow_ups = [for f, item in local.event_functions : {
    function                 = f
    key                      = "follow_ups"
    topic                    = local.topics[item.follow_ups.topic]
    own_topic                = true
    path                     = local.topology.follow_ups_path
    filter                   = ""
    subscription             = item.follow_ups.subscription
    dead_letter_topic        = item.follow_ups.dead_letter_topic
    dead_letter_subscription = item.follow_ups.dead_letter_subscription
    max_delivery_attempts    = item.follow_ups.max_delivery_attempts
    maximum_backoff_s        = try(item.follow_ups.maximum_backoff_s, local.delivery.maximum_backoff_s)
  } if can(item.follow_ups)]

  webhook_deliveries = [for name, webhook in var.webhooks : {
    function                 = "notify"
    key                      = "webhook ${name}"
    topic                    = local.topics[local.optional.webhooks.topic]
    own_topic                = false
    path                     = "${local.optional.webhooks.path}${name}"
    filter                   = local.webhook_filters[name]
    subscription             = "${local.optional.webhooks.prefix}${name}"
    dead_letter_topic        = "${local.optional.webhooks.prefix}${name}-dead"
    dead_letter_subscription = "${local.optional.webhooks.prefix}${name}-dead-hold"
    max_delivery_attempts    = local.optional.webhooks.max_delivery_attempts
    maximum_backoff_s        = local.delivery.maximum_backoff_s
  }]

  deliveries = concat(local.events, local.follow_ups, local.webhook_deliveries)
}

locals {
  # Pub/Sub takes filters of 256 bytes. Where the events do not fit, all outcomes come: the function looks too.
  filter_bytes = 256
  wanted = {
    for name, webhook in var.webhooks : name => join(" OR ", [for e in webhook.events : "attributes.outcome = \"${e}\""])
  }
  webhook_filters = { for name, text in local.wanted : name => length(text) <= local.filter_bytes ? text : "" }

  # The values of these secrets are read by Cloud Run alone: none is in a plan or in the state.
  webhook_secrets = {
    for name, webhook in var.webhooks : "WEBHOOK_SECRET_${upper(replace(name, "-", "_"))}" => webhook.secret
  }
}

# --- settings -----------------------------------------------------------------------------------

locals {
  optional_environment = {
    commands = {
      DICOM_STORE         = local.dicom_store
      STATE_BUCKET        = local.bucket_names.state
      EXPORTS_TOPIC       = local.topic_ids.exports
      DELETES_TOPIC       = local.topic_ids.deletes
      EXPORT_DESTINATIONS = join(",", local.export_places)
    }
    notify = merge({
      DICOM_STORE  = local.dicom_store
      STATE_BUCKET = local.bucket_names.state
      BUDGET_S     = tostring(local.delivery.budget_s)
      }, length(var.webhooks) == 0 ? {} : {
      WEBHOOKS = jsonencode({ for name, webhook in var.webhooks : name => {
        url = webhook.url, events = webhook.events, include_names = webhook.include_names
      } })
    })
    watch_studies = merge({
      DICOM_STORE        = local.dicom_store
      OUTCOMES_TOPIC     = local.topic_ids.outcomes
      STUDIES_NEXT_TOPIC = "projects/${var.project}/topics/${local.optional.topics.studies_next}"
      STATE_BUCKET       = local.bucket_names.state
      STUDY_QUIET_S      = tostring(var.study_quiet_s)
      BUDGET_S           = tostring(local.delivery.budget_s)
      }, local.ordering ? {
      ON_STUDY_COMPLETE   = jsonencode(var.on_study_complete)
      EXPORTS_TOPIC       = local.topic_ids.exports
      EXPORT_DESTINATIONS = join(",", local.export_places)
    } : {})
  }
}

module "commands" {
  source = "./modules/function"
  count  = var.commands ? 1 : 0

  entry_point = "commands"
  function    = local.function_common
  size        = local.size.commands
  environment = merge(local.environment.commands, lookup(var.extra_environment, "commands", {}))
  ingress     = var.commands_ingress
  callers     = { for member in var.commands_callers : member => member }

  depends_on = [time_sleep.build_grants]
}

# --- rights -------------------------------------------------------------------------------------

locals {
  members = merge(
    { for f, made in module.event_function : f => made.member },
    { for made in module.commands : "commands" => made.member },
  )

  # Who keeps state where: each only in its folder.
  optional_folders = [
    for grant in [
      { function = "commands", folder = "requests", wanted = var.commands },
      { function = "notify", folder = "requests", wanted = local.keeping_requests },
      { function = "notify", folder = "webhooks", wanted = length(var.webhooks) > 0 },
      { function = "watch_studies", folder = "studies", wanted = var.watch_studies },
    ] : grant if grant.wanted
  ]

  # Who publishes where. `notify` publishes nothing: an outcome of a webhook would be one to call webhooks with.
  optional_publishers = [
    for grant in [
      { function = "commands", topic = "exports", wanted = var.commands },
      { function = "commands", topic = "deletes", wanted = var.commands },
      { function = "watch_studies", topic = "outcomes", wanted = var.watch_studies },
      { function = "watch_studies", topic = "exports", wanted = local.ordering },
    ] : grant if grant.wanted
  ]
}
