# Commands by HTTP, webhooks, and the moment a study is complete: all of it is off unless asked for (docs/webhooks.md).

variable "commands" {
  description = "Whether to deploy commands by HTTP for exports and deletes (functions commands and notify)."
  type        = bool
  default     = false
}

variable "commands_callers" {
  description = "Who may call commands (IAM members). The setting COMMANDS_CALLERS limits the commands of each."
  type        = list(string)
  default     = []
  validation {
    condition     = !anytrue([for m in var.commands_callers : startswith(m, "all")])
    error_message = "allUsers and allAuthenticatedUsers could delete scans: name the callers."
  }
  validation {
    condition     = var.commands || length(var.commands_callers) == 0
    error_message = "commands_callers needs commands = true."
  }
}

variable "commands_ingress" {
  description = "Where requests to commands may come from."
  type        = string
  default     = "ALLOW_ALL"
  validation {
    condition     = contains(["ALLOW_ALL", "ALLOW_INTERNAL_ONLY", "ALLOW_INTERNAL_AND_GCLB"], var.commands_ingress)
    error_message = "ALLOW_ALL, ALLOW_INTERNAL_ONLY or ALLOW_INTERNAL_AND_GCLB."
  }
}

variable "webhooks" {
  description = "URLs to call with outcomes, by name: { name = { url, events, secret, include_names } }. `secret` is a secret's name."
  type = map(object({
    url           = string
    events        = optional(list(string), [])
    secret        = string
    include_names = optional(bool, false)
  }))
  default = {}
  validation {
    condition = alltrue([
      for name in keys(var.webhooks) : can(regex("^[a-z][a-z0-9-]{0,39}$", name)) && !endswith(name, "-dead-hold")
    ])
    error_message = "A name is up to 40 lowercase letters, digits and -, and does not end in -dead-hold."
  }
  validation {
    condition = alltrue([for w in values(var.webhooks) : length(w.url) <= 2048 && can(regex(
      "^https://[\\w.:\\[\\]-]+(/[\\w.~!$&'()*+,;=:@%/?-]*)?$", w.url
    ))])
    error_message = "A URL is https, at most 2048 characters long."
  }
  validation {
    condition     = length(setsubtract(flatten([for w in values(var.webhooks) : w.events]), local.outcomes)) == 0
    error_message = "Events must be among ${join(", ", local.outcomes)}."
  }
  validation {
    condition     = alltrue([for w in values(var.webhooks) : can(regex("^[a-zA-Z0-9_-]{1,255}$", w.secret))])
    error_message = "`secret` is the name of a secret in this project: letters, digits, - and _."
  }
  validation {
    condition     = length(var.webhooks) <= 20
    error_message = "At most 20: the filters of alerts name each of them."
  }
}

variable "watch_studies" {
  description = "Whether to report when a study is complete (function watch_studies)."
  type        = bool
  default     = false
}

variable "study_quiet_s" {
  description = "STUDY_QUIET_S of watch_studies: seconds without a new instance after which a study is complete."
  type        = number
  default     = 60
  validation {
    condition     = var.study_quiet_s >= 1 && var.study_quiet_s <= 86400 && floor(var.study_quiet_s) == var.study_quiet_s
    error_message = "A whole number from 1 to 86400."
  }
}

variable "on_study_complete" {
  description = "Exports that start when a study is complete: [{ name, match, export }] (docs/webhooks.md)."
  type        = any
  default     = []
  validation {
    condition     = var.watch_studies || length(var.on_study_complete) == 0
    error_message = "on_study_complete needs watch_studies = true."
  }
  validation {
    condition = alltrue([for order in var.on_study_complete : (
      can(regex("^[a-z][a-z0-9-]{0,39}$", order.name)) &&
      length(setsubtract(keys(order), ["name", "match", "export"])) == 0
    )])
    error_message = "An order has name (up to 40 lowercase letters, digits and -), export and optionally match."
  }
  validation {
    condition     = length(distinct([for order in var.on_study_complete : order.name])) == length(var.on_study_complete)
    error_message = "Two orders have the same name."
  }
  validation {
    condition = alltrue([for order in var.on_study_complete : anytrue([
      for place in local.export_places :
      try(order.export.destination == place || startswith(order.export.destination, "${place}/"), false)
    ])])
    error_message = "The destination of an export is the export bucket or one of export_destinations, or a folder there."
  }
}
