locals {
  # Cloud Run refuses a revision whose max_instances x CPU exceeds the region's quota, which is 10 to 20 vCPU in a new
  # project: no default needs more than 10. docs/scale.md says when to raise them, and which quota that takes.
  sizes = {
    store_upload    = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 10, concurrency = 8 }
    delete_resource = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 5, concurrency = 4 }
    export_resource = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 10, concurrency = 4 }
    search          = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 10, concurrency = 16 }
    commands        = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 5, concurrency = 16 }
    # A receiver that is slow holds a request for 10 s: many at a time, which wait and do nothing.
    notify        = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 5, concurrency = 32 }
    watch_studies = { cpu = "1", memory = "512Mi", min_instances = 0, max_instances = 5, concurrency = 16 }
  }
  size = { for f in local.function_names : f => {
    for key, default in local.sizes[f] : key => try(coalesce(var.functions[f][key], default), default)
  } }

  export_places = concat(["gs://${local.bucket_names.export}"], var.export_destinations)

  # functions/common/settings.py is what reads these.
  environment = merge(local.optional_environment, {
    store_upload = merge({
      DICOM_STORE        = local.dicom_store
      OUTCOMES_TOPIC     = local.topic_ids.outcomes
      UPLOADS_NEXT_TOPIC = local.topic_ids.uploads_next
      STATE_BUCKET       = local.bucket_names.state
      LANDING_BUCKET     = local.bucket_names.landing
      QUARANTINE_BUCKET  = local.bucket_names.quarantine
      BUDGET_S           = tostring(local.delivery.budget_s)
      CONFLICT_POLICY    = var.conflict_policy
      SOURCE_DISPOSITION = var.source_disposition
      STORAGE_CLASS      = var.storage_class
    }, var.move_destination == "" ? {} : { MOVE_DESTINATION = var.move_destination })
    delete_resource = {
      DICOM_STORE        = local.dicom_store
      OUTCOMES_TOPIC     = local.topic_ids.outcomes
      DELETES_NEXT_TOPIC = local.topic_ids.deletes_next
      DELETE_STORES      = join(",", concat([local.dicom_store], var.delete_stores))
      BUDGET_S           = tostring(local.delivery.budget_s)
    }
    export_resource = {
      DICOM_STORE         = local.dicom_store
      OUTCOMES_TOPIC      = local.topic_ids.outcomes
      EXPORTS_NEXT_TOPIC  = local.topic_ids.exports_next
      STATE_BUCKET        = local.bucket_names.state
      EXPORT_DESTINATIONS = join(",", local.export_places)
      BUDGET_S            = tostring(local.delivery.budget_s)
    }
    search = { DICOM_STORE = local.dicom_store }
  })

  function_common = {
    project         = var.project
    project_number  = data.google_project.this.number
    region          = var.region
    source_bucket   = google_storage_bucket.source.name
    source_object   = google_storage_bucket_object.source.name
    repository      = google_artifact_registry_repository.functions.id
    build_account   = local.build_account
    worker_pool     = var.worker_pool
    vpc_connector   = var.vpc_connector
    vpc_egress      = var.vpc_egress
    timeout_seconds = local.delivery.function_timeout_s
    grants_spread   = local.grants_spread
  }
}

module "event_function" {
  source   = "./modules/event_function"
  for_each = local.event_functions

  entry_point = each.key
  function    = local.function_common
  size        = local.size[each.key]
  environment = merge(local.environment[each.key], lookup(var.extra_environment, each.key, {}))
  secrets     = each.key == "notify" ? local.webhook_secrets : {}
  deliveries  = { for d in local.deliveries : d.key => d if d.function == each.key }

  delivery     = local.delivery
  pusher       = { email = google_service_account.delivery.email, member = google_service_account.delivery.member }
  pubsub_agent = local.pubsub_agent
  kms_key      = var.kms_key

  depends_on = [
    time_sleep.build_grants, google_project_service_identity.pubsub, time_sleep.keys, google_pubsub_topic.outcomes,
  ]
}

module "search" {
  source = "./modules/function"

  entry_point = "search"
  function    = local.function_common
  size        = local.size.search
  environment = merge(
    local.environment.search,
    { SEARCH_RETRIEVE = tostring(var.search_retrieve) },
    var.search_exports ? {
      SEARCH_EXPORTS      = "true"
      EXPORTS_TOPIC       = local.topic_ids.exports
      EXPORT_DESTINATIONS = local.environment.export_resource.EXPORT_DESTINATIONS
    } : {},
    var.search_uploads ? { SEARCH_UPLOADS = "true", LANDING_BUCKET = local.bucket_names.landing } : {},
    local.page_asks ? { STATE_BUCKET = local.bucket_names.state } : {},
    lookup(var.extra_environment, "search", {})
  )
  ingress = var.search_ingress
  callers = { for member in var.search_callers : member => member }

  depends_on = [time_sleep.build_grants]
}
