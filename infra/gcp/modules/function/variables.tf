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
  validation {
    condition     = var.size.concurrency == 1 || tonumber(var.size.cpu) >= 1
    error_message = "More than one request at a time needs at least one CPU."
  }
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

variable "ingress" {
  description = "Where requests may come from."
  type        = string
}

variable "callers" {
  description = "Who may call it: IAM members, by any key that is known before apply."
  type        = map(string)
}
