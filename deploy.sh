#!/usr/bin/env bash
# Deploys the whole system to a Google Cloud project; safe to run again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'TEXT'
Usage: ./deploy.sh --project P [--region R] [--plan | --apply | --destroy] [--yes] [--skip-smoke-test]

Checks the prerequisites, plans, asks for confirmation, applies, then stores, finds and deletes a synthetic scan as a test.

  --project P         the project to deploy to
  --region R          region of the system (default: from terraform.tfvars, else the deployed one, else us-central1);
                      new projects can build functions in some regions only, see docs/deploy.md
  --state-bucket B    bucket for Terraform's state (default: P-dicom-functions-state); it must belong to the project
  --plan              only show what would be created or changed; changes nothing
  --apply             plan, confirm, apply, test (the default)
  --destroy           take the system down; scans, buckets and the ledger are kept
  --yes               do not ask for confirmation
  --skip-smoke-test   do not store a synthetic scan afterwards
  --help              show this text

Other variables are read from infra/gcp/terraform.tfvars (see terraform.tfvars.example and docs/deploy.md).
Exit status: 0 success, 1 a step failed, 2 something is missing or the usage is wrong, 3 you did not confirm.
TEXT
}

readonly MINIMUM_BASH=4.4 MINIMUM_PYTHON=3.11 MINIMUM_TERRAFORM=1.9.0
readonly POLL_S=${DEPLOY_POLL_S:-5} # between two checks
readonly TFVARS=infra/gcp/terraform.tfvars
readonly WORK=.deploy
readonly BOOTSTRAP=(cloudresourcemanager.googleapis.com iam.googleapis.com serviceusage.googleapis.com storage.googleapis.com)

# A permission that the deployment needs, and a role that has it.
readonly PERMISSIONS=(
    artifactregistry.repositories.create:roles/artifactregistry.admin
    cloudfunctions.functions.create:roles/cloudfunctions.admin
    healthcare.datasets.create:roles/healthcare.datasetAdmin
    healthcare.datasets.setIamPolicy:roles/healthcare.datasetAdmin
    healthcare.dicomStores.create:roles/healthcare.dicomStoreAdmin
    healthcare.dicomStores.setIamPolicy:roles/healthcare.dicomStoreAdmin
    iam.roles.create:roles/iam.roleAdmin
    iam.serviceAccounts.actAs:roles/iam.serviceAccountUser
    iam.serviceAccounts.create:roles/iam.serviceAccountAdmin
    logging.logMetrics.create:roles/logging.configWriter
    logging.exclusions.create:roles/logging.configWriter
    monitoring.alertPolicies.create:roles/monitoring.editor
    monitoring.dashboards.create:roles/monitoring.editor
    monitoring.notificationChannels.create:roles/monitoring.notificationChannelEditor
    pubsub.subscriptions.create:roles/pubsub.admin
    pubsub.topics.create:roles/pubsub.admin
    pubsub.topics.setIamPolicy:roles/pubsub.admin
    resourcemanager.projects.get:roles/browser
    resourcemanager.projects.setIamPolicy:roles/resourcemanager.projectIamAdmin
    run.services.setIamPolicy:roles/run.admin
    serviceusage.services.enable:roles/serviceusage.serviceUsageAdmin
    serviceusage.services.use:roles/serviceusage.serviceUsageConsumer
    storage.buckets.create:roles/storage.admin
    storage.buckets.setIamPolicy:roles/storage.admin
)

# Only with webhooks, to let their function read its secrets.
readonly WEBHOOK_PERMISSION=secretmanager.secrets.setIamPolicy:roles/secretmanager.admin

project='' region='' state_bucket='' action=apply yes=false smoke=true
missing=0 to_enable=() scratch='' token='' number=''

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() { # MESSAGE [STATUS]
    printf 'deploy.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}
lack() { # WHAT, HOW TO FIX IT: one line each; all are printed before the script ends
    printf 'missing: %s\n         fix: %s\n' "$1" "$2" >&2
    missing=$((missing + 1))
}
give_up_if_missing() {
    ((missing == 0)) || die "prerequisites missing: $missing, see above; nothing has been changed" 2
}

clean_up() {
    smoke_clean_up
    [ -z "$scratch" ] || rm -rf "$scratch"
}
trap clean_up EXIT

parse() {
    while (($#)); do
        case $1 in
            --project) project=${2:-}; shift ;;
            --project=*) project=${1#*=} ;;
            --region) region=${2:-none}; shift ;;
            --region=*) region=${1#*=} region=${region:-none} ;;
            --state-bucket) state_bucket=${2:-none}; shift ;;
            --state-bucket=*) state_bucket=${1#*=} state_bucket=${state_bucket:-none} ;;
            --plan | --apply | --destroy) action=${1#--} ;;
            --yes) yes=true ;;
            --skip-smoke-test) smoke=false ;;
            --help | -h) usage; exit 0 ;;
            *) usage >&2; die "unknown argument: $1" 2 ;;
        esac
        shift || true
    done
    [[ $project =~ ^[a-z][a-z0-9-]{4,28}[a-z0-9]$ ]] || die "--project needs the id of a project, see --help" 2
    [ -n "$region" ] || region=$(variable region)
    [[ ${region:-us-central1} =~ ^[a-z]+-[a-z]+[0-9]{1,2}$ ]] || die "--region needs a region such as us-central1, see --help" 2
    state_bucket=${state_bucket:-$project-dicom-functions-state}
    [[ $state_bucket =~ ^[a-z0-9][a-z0-9._-]{4,61}[a-z0-9]$ ]] || die "--state-bucket needs the name of a bucket, see --help" 2
}

# The value of a string in terraform.tfvars; empty if it is not set.
variable() { sed -n "s/^ *$1 *= *\"\([^\"]*\)\".*/\1/p" "$TFVARS" 2>/dev/null || true; }

names_webhooks() { grep -qs '^ *webhooks *=' "$TFVARS"; }

# --- checks ------------------------------------------------------------------------------

older() { # A B: whether version A is older than B
    [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

check_tools() {
    command -v gcloud >/dev/null || lack "gcloud" "install it: https://cloud.google.com/sdk/docs/install"
    command -v curl >/dev/null || lack "curl" "install it with your system's packages"
    ! older "$BASH_VERSION" "$MINIMUM_BASH" ||
        lack "bash $MINIMUM_BASH (this is $BASH_VERSION)" "install a later one with your system's packages"
    if ! command -v python3 >/dev/null; then
        lack "python3" "install it with your system's packages"
    elif ! python3 -c "import sys; sys.exit(sys.version_info < (${MINIMUM_PYTHON/./, }))"; then
        lack "python3 $MINIMUM_PYTHON (this is $(python3 -V 2>&1))" "install a later one with your system's packages"
    fi
    if ! command -v terraform >/dev/null; then
        lack "terraform" "install $MINIMUM_TERRAFORM or later: https://developer.hashicorp.com/terraform/install"
        return
    fi
    local version
    version=$(terraform version | sed -n '1s/^Terraform v\([0-9.]*\).*/\1/p')
    ! older "${version:-0}" "$MINIMUM_TERRAFORM" ||
        lack "terraform $MINIMUM_TERRAFORM (this is ${version:-unknown})" "install a later one: https://developer.hashicorp.com/terraform/install"
}

# A token is valid for an hour: get a new one for each long step, and after each wait for a person.
take_token() {
    token=$(gcloud auth print-access-token 2>/dev/null) && [ -n "$token" ] || return 1
    export GOOGLE_OAUTH_ACCESS_TOKEN=$token # Terraform and its backend read it; it is never printed
}
renew_token() { take_token || die "could not renew the login. fix: gcloud auth login, then run the same command again"; }

check_login() {
    local account
    account=$(gcloud auth list --filter=status:ACTIVE --format='value(account)' 2>/dev/null || true)
    if [ -z "$account" ] || ! take_token; then
        lack "a login to Google Cloud" "gcloud auth login"
        return
    fi
    say "logged in as $account"
}

check_project() {
    if ! number=$(gcloud projects describe "$project" --format='value(projectNumber)' 2>/dev/null); then
        lack "the project $project (or permission to see it)" "gcloud projects create $project, or ask its owner for roles/browser"
        return
    fi
    local billing
    billing=$(gcloud billing projects describe "$project" --format='value(billingEnabled)' 2>/dev/null || true)
    [ "${billing,,}" = true ] ||
        lack "billing on $project" "gcloud billing projects link $project --billing-account=ACCOUNT (gcloud billing accounts list)"
    check_services
    check_permissions
    check_permission_on "https://cloudkms.googleapis.com/v1/$(variable kms_key)" cloudkms.cryptoKeys.setIamPolicy roles/cloudkms.admin
    check_permission_on "https://cloudkms.googleapis.com/v1/$(variable dataset_kms_key)" cloudkms.cryptoKeys.setIamPolicy roles/cloudkms.admin
    check_permission_on "https://cloudbilling.googleapis.com/v1/billingAccounts/$(variable billing_account)" billing.budgets.create roles/billing.costsManager
}

check_services() { # those that Terraform needs before it can enable the others
    local enabled service
    enabled=$(gcloud services list --enabled --project="$project" --format='value(config.name)' 2>/dev/null || true)
    for service in "${BOOTSTRAP[@]}"; do
        grep -qx "$service" <<<"$enabled" && continue
        if [ "$action" = apply ]; then
            to_enable+=("$service")
        else
            lack "the service $service" "gcloud services enable $service --project=$project"
        fi
    done
}

enable_services() {
    ((${#to_enable[@]})) || return 0
    say "enabling ${to_enable[*]}"
    gcloud services enable "${to_enable[@]}" --project="$project" --quiet >/dev/null ||
        die "could not enable services. fix: ask an owner for roles/serviceusage.serviceUsageAdmin"
}

# curl reads the token from a file that only this process sees; it is never on the command line.
call() { # TOKEN, further arguments of curl
    local secret=$1
    shift
    curl --silent --show-error --max-time 60 --header @<(printf 'Authorization: Bearer %s\n' "$secret") "$@"
}

look_up() { # URL: sets `status` to the HTTP status of a GET (000 without an answer), and `body` to its body
    local answer
    answer=$(call "$token" --write-out '\n%{http_code}' "$1" 2>/dev/null || true)
    status=${answer##*$'\n'} body=${answer%$'\n'*}
    status=${status:-000}
}

# A permission on a resource outside the project that terraform.tfvars names. If the URL ends in a slash, it names none.
check_permission_on() { # URL, PERMISSION, ROLE
    local answer
    [[ $1 != */ ]] || return 0
    if ! answer=$(call "$token" --fail --header 'Content-Type: application/json' --data "{\"permissions\":[\"$2\"]}" \
        "$1:testIamPermissions" 2>/dev/null); then
        say "could not check whether you have $2 on ${1#https://*/v1/}"
    elif ! grep -qF "\"$2\"" <<<"$answer"; then
        lack "the permission $2 on ${1#https://*/v1/}" "ask its owner for $3 there"
    fi
}

check_permissions() {
    local wanted answer entry entries=("${PERMISSIONS[@]}")
    ! names_webhooks || entries+=("$WEBHOOK_PERMISSION")
    wanted=$(printf '"%s",' "${entries[@]%%:*}")
    if ! answer=$(call "$token" --fail --header 'Content-Type: application/json' --data "{\"permissions\":[${wanted%,}]}" \
        "https://cloudresourcemanager.googleapis.com/v1/projects/$project:testIamPermissions" 2>/dev/null); then
        lack "the list of your permissions" "gcloud services enable cloudresourcemanager.googleapis.com --project=$project"
        return
    fi
    for entry in "${entries[@]}"; do
        grep -qF "\"${entry%%:*}\"" <<<"$answer" ||
            lack "the permission ${entry%%:*}" "ask an owner: gcloud projects add-iam-policy-binding $project --member=user:YOU --role=${entry#*:}"
    done
}

# --- Terraform -----------------------------------------------------------------------------

tf() { terraform -chdir="$folder/infra/gcp" "$@"; }

# Runs Terraform with its output on the terminal and in a file, so that a failure can be explained.
tf_explained() {
    tf "$@" 2>&1 | tee "$scratch/output" && return 0
    explain "$scratch/output"
    return 1
}

# Data is not moved, so the region of the buckets is the region of the system.
settle_region() {
    local state deployed
    state=$(tf state pull) || die "could not read the state, see above"
    deployed=$(python3 -c '
import json, sys
for resource in json.loads(sys.stdin.read().strip() or "{}").get("resources", []):
    if (resource["type"], resource["name"]) == ("google_storage_bucket", "data") and resource["instances"]:
        print(resource["instances"][0]["attributes"]["location"].lower())
' <<<"$state")
    if [ -n "$deployed" ] && [ "${region:-$deployed}" != "$deployed" ]; then
        die "this system is in $deployed, and its data cannot move to $region: omit the region (in terraform.tfvars too), or deploy to another project" 2
    fi
    region=${region:-$deployed}
    name_variables
}

name_variables() { variables=(-var="project=$project" ${region:+-var="region=$region"}); }

confirm() { # QUESTION, ANSWER
    [ "$yes" = false ] || return 0
    local answer=''
    printf '\n%s Type %s to continue: ' "$1" "$2"
    read -r answer || true
    [ "$answer" = "$2" ] || die "stopped; nothing was changed" 3
}

plan_and_apply() {
    step "Plan"
    local status=0
    tf plan -input=false -detailed-exitcode -out="$PLAN" "${variables[@]}" || status=$?
    case $status in
        0) say "no changes"; return ;;
        2)
            warn_of_region
            [ "$action" = apply ] || return 0
            ;;
        *) die "the plan failed, see above; nothing was changed" ;;
    esac
    confirm "Apply this to $project?" yes
    step "Apply"
    renew_token
    delete_failed_functions
    tf_explained apply -input=false -no-color "$PLAN" ||
        die "not finished, see above. What was created is recorded: run the same command again to continue"
    renew_token
}

destroy() {
    step "Destroy"
    say "Deleted: functions, topics, subscriptions (and the messages in them), alerts, accounts."
    say "Kept: the DICOM store, every bucket with its objects, and the state, so that a later deployment can use them again."
    confirm "This takes down the system in $project." "$project"
    renew_token
    local address
    tf show -json | python3 -c '
import json, sys
# The roles too, which are then granted to nobody: the name of a deleted role cannot be used again for a month.
KEPT = {
    "google_healthcare_dataset.this", "google_healthcare_dicom_store.this", "google_storage_bucket.data",
    "google_project_iam_custom_role.roles",
}
# Bindings on the kept buckets. To delete them would take the roles of the owners away. A later deployment sets them
# again without an import, so they are not listed.
FORGOTTEN = "google_storage_bucket_iam_binding.convenience"
root = json.load(sys.stdin).get("values", {}).get("root_module", {})
kept, forgotten = open(sys.argv[1], "w"), open(sys.argv[2], "w")
for resource in root.get("resources", []):
    address = resource["address"]
    if address.split("[")[0] in KEPT:
        print(address, resource["values"]["id"], sep="\t", file=kept)
    elif address.split("[")[0] == FORGOTTEN:
        print(address, file=forgotten)
' "$scratch/kept.tsv" "$scratch/forgotten"
    if [ -s "$scratch/kept.tsv" ]; then
        # Written first, so that a later failure does not lose track of a bucket.
        write_kept "$scratch/kept.tsv"
    fi
    { cut -f 1 "$scratch/kept.tsv" && cat "$scratch/forgotten"; } >"$scratch/addresses"
    while read -r address; do
        tf state rm "$address" >/dev/null </dev/null || die "not finished, see above: run the same command again to continue"
    done <"$scratch/addresses"
    tf destroy -input=false -auto-approve "${variables[@]}" || die "not finished, see above: run the same command again to continue"
    step "Done"
    say "Kept: $(kept | cut -f 2 | tr '\n' ' ')"
}

# shellcheck source=infra/gcp/state.sh
source infra/gcp/state.sh
# shellcheck source=infra/gcp/failures.sh
source infra/gcp/failures.sh
# shellcheck source=infra/gcp/smoke_test.sh
source infra/gcp/smoke_test.sh

main() {
    parse "$@"
    scratch=$(mktemp -d)
    step "Checks"
    check_tools
    give_up_if_missing
    check_login
    give_up_if_missing
    check_project
    give_up_if_missing
    say "all prerequisites found"

    enable_services
    name_variables
    mkdir -p "$WORK"
    PLAN=$PWD/$WORK/plan
    prepare_state
    [ "$action" = destroy ] || take_up_kept
    settle_region
    if [ "$action" = destroy ]; then
        destroy
        return
    fi
    plan_and_apply
    [ "$action" = apply ] || return 0
    tf output -json system >"$WORK/system.json"
    [ "$smoke" = false ] || smoke_test
    step "Done"
    tf output -raw next_steps
}

main "$@"
