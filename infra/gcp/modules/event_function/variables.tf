variable "entry_point" {
  description = "The name in main.py."
  type        = string
}

variable "function" {
  description = "Values that all functions share."
  type = object({
    project         = string
    project_number  = string
    region          = string
    source_bucket   = string
    source_object   = string
    repository      = string
    build_account   = string
    worker_pool     = string
    vpc_connector   = string
    vpc_egress      = string
    timeout_seconds = number
    grants_spread   = string
  })
}

variable "size" {
  description = "CPU, memory, number of instances, and requests at a time."
  type = object({
    cpu           = string
    memory        = string
    min_instances = number
    max_instances = number
    concurrency   = number
  })
}

variable "environment" {
  description = "Settings, as functions/common/settings.py reads them."
  type        = map(string)
}

variable "secrets" {
  description = "Names of secrets of this project, by the environment variable that has the latest version's value."
  type        = map(string)
  default     = {}
}

variable "deliveries" {
  description = "Its subscriptions: `events`, its own `follow_ups`, and more, each with a path. `filter`: which messages; empty: all."
  type = map(object({
    topic                    = string
    own_topic                = bool
    path                     = string
    filter                   = string
    subscription             = string
    dead_letter_topic        = string
    dead_letter_subscription = string
    max_delivery_attempts    = number
    maximum_backoff_s        = number
  }))
  validation {
    condition     = length(distinct([for d in values(var.deliveries) : d.path])) == length(var.deliveries)
    error_message = "Each has a path of its own: by it the function knows what comes."
  }
}

variable "delivery" {
  description = "`delivery` of infra/topology.json, in seconds."
  type = object({
    budget_s                = number
    ack_deadline_s          = number
    minimum_backoff_s       = number
    retention_s             = number
    dead_letter_retention_s = number
  })
}

variable "pusher" {
  description = "The account whose token Pub/Sub sends to the function."
  type        = object({ email = string, member = string })
}

variable "pubsub_agent" {
  description = "Pub/Sub's own account, in IAM's form."
  type        = string
}

variable "kms_key" {
  description = "Key for the topics; empty: keys that Google manages."
  type        = string
}
