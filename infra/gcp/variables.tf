# --- where -----------------------------------------------------------------------

variable "project" {
  description = "Id of the project to deploy to."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region of the functions, buckets and messages. New projects may build in some regions only (docs/deploy.md)."
  type        = string
  default     = "us-central1"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]{1,2}$", var.region))
    error_message = "A region such as us-central1; functions do not run in multi-regions."
  }
}

variable "bucket_prefix" {
  description = "Prefix of bucket names, which are unique worldwide; null: the project and a hyphen."
  type        = string
  default     = null
  validation {
    condition     = var.bucket_prefix == null || can(regex("^[a-z0-9][a-z0-9-]{0,40}$", coalesce(var.bucket_prefix, "x")))
    error_message = "Up to 41 lower-case letters, digits and hyphens, beginning with a letter or digit."
  }
}

variable "labels" {
  description = "Labels for all resources that can have labels."
  type        = map(string)
  default     = {}
}

variable "dicom_store" {
  description = "An existing DICOM store, projects/P/locations/L/datasets/D/dicomStores/S; empty: one is created."
  type        = string
  default     = ""
  validation {
    condition = var.dicom_store == "" || can(regex(
      "^projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/datasets/[\\w.-]{1,256}/dicomStores/[\\w.-]{1,256}$", var.dicom_store
    ))
    error_message = "Takes projects/P/locations/L/datasets/D/dicomStores/S."
  }
}

variable "dataset_location" {
  description = "Where the dataset is created, if not in `region`: a region of the Healthcare API, us or eu."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^([a-z]+-[a-z]+[0-9]{1,2}|us|eu)?$", var.dataset_location))
    error_message = "A region, us or eu."
  }
}

variable "dataset" {
  description = "Name of the Healthcare dataset that is created."
  type        = string
  default     = "dicom-functions"
  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{1,256}$", var.dataset))
    error_message = "Letters, digits and _.- only."
  }
}

variable "store" {
  description = "Name of the DICOM store that is created."
  type        = string
  default     = "scans"
  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{1,256}$", var.store))
    error_message = "Letters, digits and _.- only."
  }
}

# --- what the functions do ----------------------------------------------------------

variable "conflict_policy" {
  description = "CONFLICT_POLICY of store_upload. With `overwrite` in it, the function may delete instances in the store."
  type        = string
  default     = "reject"
  validation {
    condition     = can(regex("^\\s*([^,]*=)?(reject|keep|overwrite)\\s*(,\\s*([^,]*=)?(reject|keep|overwrite)\\s*)*$", var.conflict_policy))
    error_message = "reject, keep or overwrite, or PREFIX=one of these, separated by commas."
  }
}

variable "source_disposition" {
  description = "SOURCE_DISPOSITION of store_upload: keep, delete or move, by prefix."
  type        = string
  default     = "keep"
  validation {
    condition     = can(regex("^\\s*([^,]*=)?(keep|delete|move)\\s*(,\\s*([^,]*=)?(keep|delete|move)\\s*)*$", var.source_disposition))
    error_message = "keep, delete or move, or PREFIX=one of these, separated by commas."
  }
}

variable "move_destination" {
  description = "gs://bucket/prefix that `move` moves to, not in the landing, quarantine or state bucket; the bucket must already exist."
  type        = string
  default     = ""
  validation {
    condition     = var.move_destination == "" || can(regex("^gs://[a-z0-9][a-z0-9._-]+(/[^,]+)?$", var.move_destination))
    error_message = "gs://bucket or gs://bucket/prefix."
  }
  validation {
    condition = !anytrue([
      for name in ["landing", "quarantine", "state"] :
      startswith("${var.move_destination}/", "gs://${local.bucket_names[name]}/")
    ])
    error_message = "Not in the landing, quarantine or state bucket: what is moved there would be an upload again, or state."
  }
  validation {
    condition     = var.move_destination != "" || !strcontains(var.source_disposition, "move")
    error_message = "A source_disposition with `move` needs move_destination."
  }
}

variable "storage_class" {
  description = "STORAGE_CLASS of store_upload, by prefix; empty: the store's default."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^(\\s*([^,]*=)?(STANDARD|NEARLINE|COLDLINE|ARCHIVE)?\\s*(,|$))*$", var.storage_class))
    error_message = "STANDARD, NEARLINE, COLDLINE or ARCHIVE, or PREFIX=one of these, separated by commas."
  }
}

variable "export_destinations" {
  description = "Folders (gs://bucket/prefix) for exports besides the export bucket, in existing buckets; not in the system's other buckets."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for d in var.export_destinations : can(regex("^gs://[a-z0-9][a-z0-9._-]+(/[^,]+)?$", d))])
    error_message = "Each is gs://bucket or gs://bucket/prefix."
  }
  validation {
    condition = !anytrue([
      for place in setproduct(var.export_destinations, ["landing", "quarantine", "ledger", "state"]) :
      startswith("${place[0]}/", "gs://${local.bucket_names[place[1]]}/")
    ])
    error_message = "Not in the landing, quarantine, ledger or state bucket: an export there would be an upload, or damage their data."
  }
}

variable "delete_stores" {
  description = "More DICOM stores of this project that deletes may use, projects/P/locations/L/datasets/D/dicomStores/S."
  type        = list(string)
  default     = []
  validation {
    condition = alltrue([for s in var.delete_stores : can(regex(
      "^projects/${var.project}/locations/[a-z0-9-]+/datasets/[\\w.-]{1,256}/dicomStores/[\\w.-]{1,256}$", s
    ))])
    error_message = "Each is projects/P/locations/L/datasets/D/dicomStores/S, in this project."
  }
}

variable "search_retrieve" {
  description = "Whether search also retrieves images and metadata (WADO-RS, read only), for its page and for viewers."
  type        = bool
  default     = false
}

variable "search_exports" {
  description = "Whether the search page can export, and shows what became of it. Search may publish to the exports topic; notify is deployed."
  type        = bool
  default     = false
}

variable "search_uploads" {
  description = "Whether files can be uploaded from the search page into the landing bucket, with their outcomes. notify is deployed."
  type        = bool
  default     = false
  validation {
    condition     = !(var.search_uploads && var.search_public)
    error_message = "With search_public anyone could upload into the landing bucket."
  }
}

variable "extra_environment" {
  description = "More settings by function, such as { search = { SEARCH_ORIGINS = \"https://viewer.example.org\" } }."
  type        = map(map(string))
  default     = {}
  validation {
    condition     = alltrue([for f in keys(var.extra_environment) : contains(local.function_names, f)])
    error_message = "Keys are ${join(", ", local.function_names)}."
  }
  validation {
    condition     = !anytrue([for key in flatten([for e in values(var.extra_environment) : keys(e)]) : startswith(key, "WEBHOOK_SECRET_")])
    error_message = "Name a webhook's secret in webhooks: here its value would be in the state."
  }
}

variable "functions" {
  description = <<-TEXT
    Size of each function; omitted values keep their defaults (docs/scale.md says which to change).
    max_instances x concurrency is the most requests at a time: keep it below the DICOM store's quota.
  TEXT
  type = map(object({
    cpu           = optional(string)
    memory        = optional(string)
    min_instances = optional(number)
    max_instances = optional(number)
    concurrency   = optional(number)
  }))
  default = {}
  validation {
    condition     = alltrue([for f in keys(var.functions) : contains(local.function_names, f)])
    error_message = "Keys are ${join(", ", local.function_names)}."
  }
  validation {
    condition = alltrue([for f, s in var.functions : (
      coalesce(s.concurrency, 1) >= 1 && coalesce(s.concurrency, 1) <= 1000 && coalesce(s.max_instances, 1) >= 1 &&
      coalesce(s.min_instances, 0) <= coalesce(s.max_instances, try(local.sizes[f].max_instances, 1000))
    )])
    error_message = "concurrency takes 1 to 1000, max_instances at least 1, min_instances no more than max_instances (or its default)."
  }
}

# --- who builds --------------------------------------------------------------------

variable "worker_pool" {
  description = "Full name of a private pool of Cloud Build to build the functions in; empty: the default pool of `region`."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^(projects/[^/]+/locations/[^/]+/workerPools/[^/]+)?$", var.worker_pool))
    error_message = "Takes projects/P/locations/L/workerPools/W."
  }
}

variable "build_service_account" {
  description = "Email of an account that builds the functions; empty: one is created, with the project's only two bindings."
  type        = string
  default     = ""
}

# --- network and keys -----------------------------------------------------------------

variable "search_ingress" {
  description = "Where requests to search may come from. The event functions accept only internal traffic (Pub/Sub)."
  type        = string
  default     = "ALLOW_ALL"
  validation {
    condition     = contains(["ALLOW_ALL", "ALLOW_INTERNAL_ONLY", "ALLOW_INTERNAL_AND_GCLB"], var.search_ingress)
    error_message = "ALLOW_ALL, ALLOW_INTERNAL_ONLY or ALLOW_INTERNAL_AND_GCLB."
  }
}

variable "vpc_connector" {
  description = "Full name of a Serverless VPC Access connector for the functions' outgoing traffic; empty: none."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^(projects/[^/]+/locations/[^/]+/connectors/[^/]+)?$", var.vpc_connector))
    error_message = "Takes projects/P/locations/L/connectors/C: with a short name every plan would show a change."
  }
}

variable "vpc_egress" {
  description = "Which traffic goes through the connector."
  type        = string
  default     = "PRIVATE_RANGES_ONLY"
  validation {
    condition     = contains(["PRIVATE_RANGES_ONLY", "ALL_TRAFFIC"], var.vpc_egress)
    error_message = "PRIVATE_RANGES_ONLY or ALL_TRAFFIC."
  }
}

variable "kms_key" {
  description = "Cloud KMS key (in `region`) for buckets, topics and a dataset in `region`; empty: keys managed by Google."
  type        = string
  default     = ""
  validation {
    condition = var.kms_key == "" || can(regex(
      "^projects/[^/]+/locations/${var.region}/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key
    ))
    error_message = "Takes projects/P/locations/REGION/keyRings/R/cryptoKeys/K, a key in `region`."
  }
}

variable "dataset_kms_key" {
  description = "Cloud KMS key for the dataset, in its location; empty: `kms_key`. Required for a dataset outside `region` if kms_key is set."
  type        = string
  default     = ""
  validation {
    # Cloud KMS calls its European multi-region `europe`, the Healthcare API `eu`.
    condition = var.dataset_kms_key == "" || can(regex(
      "^projects/[^/]+/locations/${replace(coalesce(var.dataset_location, var.region), "/^eu$/", "eu(rope)?")}/keyRings/[^/]+/cryptoKeys/[^/]+$",
      var.dataset_kms_key
    ))
    error_message = "Takes projects/P/locations/LOCATION/keyRings/R/cryptoKeys/K, a key in the dataset's location."
  }
  validation {
    condition = (
      var.kms_key == "" || var.dataset_kms_key != "" || var.dicom_store != "" ||
      contains(["", var.region], var.dataset_location)
    )
    error_message = "A dataset outside `region` cannot use kms_key: set dataset_kms_key to a key in dataset_location."
  }
}

# --- how long --------------------------------------------------------------------------

variable "retention_days" {
  description = "Days until objects are deleted, by bucket (landing, quarantine, export, ledger); 0: never."
  type        = map(number)
  default     = {}
  validation {
    condition     = alltrue([for b in keys(var.retention_days) : contains(["landing", "quarantine", "export", "ledger"], b)])
    error_message = "Keys are landing, quarantine, export and ledger."
  }
  validation {
    condition     = alltrue([for d in values(var.retention_days) : d >= 0 && floor(d) == d])
    error_message = "Whole days, 0 for never."
  }
  validation {
    condition = (
      lookup(var.retention_days, "landing", 0) == 0 ||
      lookup(var.retention_days, "landing", 0) >= local.topology.state_expires_days
    )
    error_message = "landing: 0, or at least ${local.topology.state_expires_days}. A dead letter, held for 31 days, needs its object."
  }
  validation {
    # Where the ledger is deleted first, `reconcile` finds no outcome for an object and publishes its event again.
    condition = lookup(var.retention_days, "ledger", 0) == 0 || (
      lookup(var.retention_days, "landing", 0) > 0 &&
      lookup(var.retention_days, "ledger", 0) > lookup(var.retention_days, "landing", 0)
    )
    error_message = "ledger: 0, or longer than a landing that is not 0: each object in landing needs its outcome."
  }
}

# --- operations ------------------------------------------------------------------------

variable "alert_email" {
  description = "Email address for alerts; empty: only notification_channels."
  type        = string
  default     = ""
}

variable "notification_channels" {
  description = "Full names of existing notification channels that alerts are sent to."
  type        = list(string)
  default     = []
}

variable "audit_logs" {
  description = "Whether the Healthcare API writes data-access audit logs (who read and wrote which study). Their storage costs money."
  type        = bool
  default     = false
}

variable "billing_account" {
  description = "Billing account for the budget."
  type        = string
  default     = ""
}

variable "budget" {
  description = "Monthly amount in the account's currency; alerts at 50, 90 and 100 % of it. 0: no budget."
  type        = number
  default     = 0
  validation {
    condition     = var.budget == 0 || (var.budget > 0 && var.billing_account != "")
    error_message = "A budget needs billing_account."
  }
}
