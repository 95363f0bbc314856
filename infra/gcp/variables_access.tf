# Who may upload, command and search. Nobody, unless named here; commands_callers is in variables_workflows.tf.

variable "uploaders" {
  description = "Who may upload scans to the landing bucket (IAM members). They can neither read nor overwrite."
  type        = list(string)
  default     = []
  validation {
    condition     = !anytrue([for m in var.uploaders : startswith(m, "all")])
    error_message = "allUsers and allAuthenticatedUsers could fill the DICOM store: name the uploaders."
  }
}

variable "command_publishers" {
  description = "Who may publish delete and export commands (IAM members), by topic: { deletes = [...], exports = [...] }."
  type        = map(list(string))
  default     = {}
  validation {
    condition     = alltrue([for topic in keys(var.command_publishers) : contains(["deletes", "exports"], topic)])
    error_message = "Keys are deletes and exports."
  }
  validation {
    condition     = !anytrue([for m in flatten(values(var.command_publishers)) : startswith(m, "all")])
    error_message = "allUsers and allAuthenticatedUsers could delete scans: name the publishers."
  }
}

variable "search_callers" {
  description = "Who may call search (IAM members). allUsers and allAuthenticatedUsers also need search_public."
  type        = list(string)
  default     = []
  validation {
    condition     = var.search_public || !anytrue([for m in var.search_callers : startswith(m, "all")])
    error_message = "allUsers and allAuthenticatedUsers show patient data to anyone; set search_public too if that is intended."
  }
}

variable "search_public" {
  description = "Whether search_callers may name allUsers. For public collections only."
  type        = bool
  default     = false
}
