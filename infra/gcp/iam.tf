# Who may do what: every grant is on one resource, none on the project. docs/permissions.md shows this as a table,
# and a test compares the two. The exceptions are the two bindings of the account that builds the functions.
locals {
  overwrites   = strcontains(var.conflict_policy, "overwrite")
  objects_read = ["storage.objects.get", "storage.objects.list"] # without list, a missing object is 403 and not 404

  custom_roles = merge({
    dicomStoreWriter = concat(
      ["healthcare.dicomStores.dicomWebRead", "healthcare.dicomStores.dicomWebWrite"],
      local.overwrites ? ["healthcare.dicomStores.dicomWebDelete"] : []
    )
    # get: Google documents no permission for getStudyMetrics; getDICOMStoreMetrics takes this one.
    dicomStoreDeleter = [
      "healthcare.dicomStores.dicomWebDelete", "healthcare.dicomStores.dicomWebRead", "healthcare.dicomStores.get",
    ]
    dicomStoreReader     = ["healthcare.dicomStores.dicomWebRead"]
    dicomOperationReader = ["healthcare.operations.get"]
    dicomLandingUser     = concat(local.objects_read, ["storage.objects.delete"]) # to quarantine is to move
    # delete: Cloud Storage requires it to overwrite an object, as happens on a redelivery.
    dicomObjectKeeper = concat(local.objects_read, ["storage.objects.create", "storage.objects.delete"])
    dicomLedgerWriter = ["storage.buckets.get", "storage.objects.create"]
    },
    local.page_asks ? { dicomObjectReader = local.objects_read } : {},
    var.search_uploads ? { dicomObjectCreator = ["storage.objects.create"] } : {},
  )
  role = { for id in keys(local.custom_roles) : id => "projects/${var.project}/roles/${id}" }

  store_upload    = module.event_function["store_upload"].member
  delete_resource = module.event_function["delete_resource"].member
  export_resource = module.event_function["export_resource"].member
  search          = module.search.member

  export_buckets = toset([
    for d in var.export_destinations : split("/", d)[2] if split("/", d)[2] != local.bucket_names.export
  ])
  bucket_grants = merge(
    {
      "store_upload landing"    = { bucket = "landing", role = local.role.dicomLandingUser, member = local.store_upload }
      "store_upload quarantine" = { bucket = "quarantine", role = local.role.dicomObjectKeeper, member = local.store_upload }
      "export_resource export"  = { bucket = "export", role = local.role.dicomObjectKeeper, member = local.export_resource }
      "pubsub ledger"           = { bucket = "ledger", role = local.role.dicomLedgerWriter, member = local.pubsub_agent }
    },
    { for m in var.uploaders : "${m} landing" => { bucket = "landing", role = "roles/storage.objectCreator", member = m } }
  )

  # Stores beside our own that may be deleted from: project/location/dataset/store.
  delete_stores = toset([
    for s in var.delete_stores : join("/", [split("/", s)[1], split("/", s)[3], split("/", s)[5], split("/", s)[7]])
  ])

  publisher = "roles/pubsub.publisher"
  topic_grants = merge(
    {
      "storage uploads"          = { topic = "uploads", role = local.publisher, member = local.storage_agent }
      "store_upload outcomes"    = { topic = "outcomes", role = local.publisher, member = local.store_upload }
      "delete_resource outcomes" = { topic = "outcomes", role = local.publisher, member = local.delete_resource }
      "export_resource outcomes" = { topic = "outcomes", role = local.publisher, member = local.export_resource }
    },
    var.search_exports ? {
      "search exports" = { topic = "exports", role = local.publisher, member = local.search }
    } : {},
    { for g in local.optional_publishers : "${g.function} ${g.topic}" => {
      topic = g.topic, role = local.publisher, member = local.members[g.function]
    } },
    merge([for topic, members in var.command_publishers : {
      for m in members : "${m} ${topic}" => { topic = topic, role = local.publisher, member = m }
    }]...)
  )

  state_grants = merge(
    {
      "store_upload pairs"      = { folder = "pairs", role = "dicomObjectKeeper", member = local.store_upload }
      "export_resource exports" = { folder = "exports", role = "dicomObjectKeeper", member = local.export_resource }
    },
    { for g in local.optional_folders : "${g.function} ${g.folder}" => {
      folder = g.folder, role = "dicomObjectKeeper", member = local.members[g.function]
    } },
    local.page_asks ? {
      "search requests" = { folder = "requests", role = "dicomObjectReader", member = local.search }
    } : {}
  )

  dicom_store_grants = merge({
    store_upload    = { role = local.role.dicomStoreWriter, member = local.store_upload }
    delete_resource = { role = local.role.dicomStoreDeleter, member = local.delete_resource }
    export_resource = { role = local.role.dicomStoreReader, member = local.export_resource }
    search          = { role = local.role.dicomStoreReader, member = local.search }
    },
    var.watch_studies ? {
      watch_studies = { role = local.role.dicomStoreReader, member = local.members["watch_studies"] }
    } : {}
  )
}

resource "google_project_iam_custom_role" "roles" {
  for_each    = local.custom_roles
  project     = var.project
  role_id     = each.key
  title       = "DICOM Functions: ${each.key}"
  permissions = each.value
  depends_on  = [time_sleep.apis]

  lifecycle {
    precondition {
      condition     = local.dicom_parts[1] == var.project
      error_message = "The DICOM store must be in this project: its custom roles do not apply elsewhere."
    }
  }
}

resource "google_storage_bucket_iam_member" "grants" {
  for_each   = local.bucket_grants
  bucket     = google_storage_bucket.data[each.value.bucket].name
  role       = each.value.role
  member     = each.value.member
  depends_on = [google_project_iam_custom_role.roles, google_project_service_identity.pubsub]
}

# Each function keeps its state in a folder of its own. Listing is an action on the bucket and not on an object; without
# that permission a missing object would be 403 and not 404.
resource "google_storage_bucket_iam_member" "state" {
  for_each = local.state_grants
  bucket   = google_storage_bucket.data["state"].name
  role     = local.role[each.value.role]
  member   = each.value.member

  condition {
    title      = "only ${each.value.folder}"
    expression = <<-CEL
      resource.type == "storage.googleapis.com/Bucket" ||
      resource.name.startsWith("projects/_/buckets/${local.bucket_names.state}/objects/${each.value.folder}/")
    CEL
  }

  depends_on = [google_project_iam_custom_role.roles]
}

# What the search page uploads has names of its own in the landing bucket (functions/api/page_uploads.py).
resource "google_storage_bucket_iam_member" "page_uploads" {
  count  = var.search_uploads ? 1 : 0
  bucket = google_storage_bucket.data["landing"].name
  role   = local.role.dicomObjectCreator
  member = local.search

  condition {
    title      = "only uploads"
    expression = <<-CEL
      resource.type == "storage.googleapis.com/Bucket" ||
      resource.name.startsWith("projects/_/buckets/${local.bucket_names.landing}/objects/uploads/")
    CEL
  }

  depends_on = [google_project_iam_custom_role.roles]
}

resource "google_storage_bucket_iam_member" "export_destinations" {
  for_each   = local.export_buckets
  bucket     = each.key
  role       = local.role.dicomObjectKeeper
  member     = local.export_resource
  depends_on = [google_project_iam_custom_role.roles]
}

# Read too: if an object already has the name there, the two are compared.
resource "google_storage_bucket_iam_member" "move_destination" {
  count      = var.move_destination == "" ? 0 : 1
  bucket     = split("/", var.move_destination)[2]
  role       = local.role.dicomObjectKeeper
  member     = local.store_upload
  depends_on = [google_project_iam_custom_role.roles]
}

resource "google_pubsub_topic_iam_member" "grants" {
  for_each   = local.topic_grants
  project    = var.project
  topic      = each.value.topic == "outcomes" ? google_pubsub_topic.outcomes.name : local.topology.topics[each.value.topic]
  role       = each.value.role
  member     = each.value.member
  depends_on = [module.event_function, data.google_storage_project_service_account.gcs]
}

resource "google_healthcare_dicom_store_iam_member" "grants" {
  for_each       = local.dicom_store_grants
  dicom_store_id = local.dicom_store_id
  role           = each.value.role
  member         = each.value.member
  depends_on     = [google_project_iam_custom_role.roles, google_healthcare_dicom_store.this]
}

# Operations belong to the dataset: a role on the store is not enough to follow one.
resource "google_healthcare_dataset_iam_member" "operations" {
  dataset_id = local.dataset_id
  role       = local.role.dicomOperationReader
  member     = local.delete_resource
  depends_on = [google_project_iam_custom_role.roles, google_healthcare_dataset.this]
}

resource "google_healthcare_dicom_store_iam_member" "delete_stores" {
  for_each       = local.delete_stores
  dicom_store_id = each.key
  role           = local.role.dicomStoreDeleter
  member         = local.delete_resource
  depends_on     = [google_project_iam_custom_role.roles]
}

resource "google_healthcare_dataset_iam_member" "delete_stores" {
  for_each   = setsubtract([for s in local.delete_stores : dirname(s)], [local.dataset_id])
  dataset_id = each.key
  role       = local.role.dicomOperationReader
  member     = local.delete_resource
  depends_on = [google_project_iam_custom_role.roles]
}

# What needs a permission at the moment it is created comes after the permission has spread.
resource "time_sleep" "rights" {
  create_duration = local.grants_spread
  depends_on = [
    google_storage_bucket_iam_member.grants,
    google_storage_bucket_iam_member.state,
    google_pubsub_topic_iam_member.grants,
  ]
}

# --- the ledger's dead letters ------------------------------------------------------------------

resource "google_pubsub_topic_iam_member" "outcomes_dead" {
  project    = var.project
  topic      = google_pubsub_topic.outcomes_dead.name
  role       = "roles/pubsub.publisher"
  member     = local.pubsub_agent
  depends_on = [google_project_service_identity.pubsub]
}

resource "google_pubsub_subscription_iam_member" "outcomes_dead" {
  project      = var.project
  subscription = google_pubsub_subscription.ledger.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent

  lifecycle {
    # A subscription that is replaced has the same name and no bindings.
    replace_triggered_by = [google_pubsub_subscription.ledger.id]
  }
}

# --- the account that calls the event functions ---------------------------------------------------

resource "google_service_account" "delivery" {
  project      = var.project
  account_id   = "dicom-delivery"
  display_name = "Signs the tokens that Pub/Sub calls the functions with"
  depends_on   = [time_sleep.apis]
}

resource "google_service_account_iam_member" "delivery" {
  service_account_id = google_service_account.delivery.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent
  depends_on         = [google_project_service_identity.pubsub]
}
