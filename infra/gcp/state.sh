# shellcheck shell=bash disable=SC2154
# Part of deploy.sh, which reads this file: the bucket with Terraform's state, and what --destroy keeps.

# Bucket names are unique worldwide, and this one can be guessed. If somebody else had created a bucket of this name, it
# would get the state with all settings. So its project is compared before anything is written or read.
state_exists() {
    local owner
    look_up "https://storage.googleapis.com/storage/v1/b/$state_bucket?fields=projectNumber"
    case $status in
        404) return 1 ;;
        200) owner=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["projectNumber"])' <<<"$body") ;;
        403) owner=unknown ;;
        *) die "could not look up gs://$state_bucket (HTTP $status): run the same command again" ;;
    esac
    [ "$owner" = "$number" ] ||
        die "gs://$state_bucket is not a bucket of $project that you can see. fix: choose another name with --state-bucket" 2
}

# The checksums of the providers since the first download. Terraform's registry signs them, but only a lock file makes
# sure that every later deployment runs the same programs.
readonly LOCK=terraform.lock.hcl
kept_lock=''

fetch_lock() {
    look_up "https://storage.googleapis.com/storage/v1/b/$state_bucket/o/$LOCK?alt=media"
    case $status in
        200)
            kept_lock=$(printf '%s' "$body") # without the newlines at its end
            printf '%s\n' "$kept_lock" >"$folder/infra/gcp/.$LOCK"
            ;;
        404) ;;
        *) die "could not read gs://$state_bucket/$LOCK (HTTP $status): run the same command again" ;;
    esac
}

keep_lock() {
    local file=$folder/infra/gcp/.$LOCK
    [ -e "$file" ] && [ "$(<"$file")" != "$kept_lock" ] || return 0
    gcloud storage cp "$file" "gs://$state_bucket/$LOCK" --quiet >/dev/null 2>&1 ||
        die "could not write gs://$state_bucket/$LOCK"
}

make_state_bucket() {
    local binding
    say "state: creating gs://$state_bucket"
    gcloud storage buckets create "gs://$state_bucket" --project="$project" --location="${region:-us-central1}" \
        --uniform-bucket-level-access --public-access-prevention --quiet
    # The project's viewers can read new buckets and its editors can write them; neither may use the state.
    for binding in projectViewer:legacyBucketReader projectViewer:legacyObjectReader \
        projectEditor:legacyBucketOwner projectEditor:legacyObjectOwner; do
        gcloud storage buckets remove-iam-policy-binding "gs://$state_bucket" --member="${binding%:*}:$project" \
            --role="roles/storage.${binding#*:}" --quiet >/dev/null 2>&1 ||
            say "could not remove roles/storage.${binding#*:} on gs://$state_bucket from ${binding%:*}:$project"
    done
}

prepare_state() {
    folder=$PWD
    if state_exists; then
        say "state: gs://$state_bucket"
    elif [ "$action" = plan ]; then
        # Nothing has been deployed, and nothing may be created now: plan with a copy that has an empty state.
        say "state: none yet; everything below would be created"
        folder=$scratch/copy
        mkdir -p "$folder"
        cp -R main.py requirements.txt functions infra "$folder/"
        rm -rf "$folder/infra/gcp/.terraform"
        printf 'terraform {\n  backend "local" {}\n}\n' >"$folder/infra/gcp/backend_override.tf"
        tf init -input=false -no-color -upgrade >/dev/null
        return
    elif [ "$action" = destroy ]; then
        die "gs://$state_bucket does not exist: nothing was deployed" 2
    else
        make_state_bucket
    fi
    [ "$action" = plan ] || gcloud storage buckets update "gs://$state_bucket" --versioning --quiet >/dev/null
    fetch_lock
    # -upgrade: if the code names another version than the lock file, the code's version is used. The checksums of an
    # unchanged version are still compared.
    tf init -input=false -no-color -reconfigure -upgrade -backend-config="bucket=$state_bucket" >/dev/null
    [ "$action" = plan ] || keep_lock
}

# What --destroy kept: lines of address and id. Each run writes its own list, so that none overwrites another.
kept() { { gcloud storage cat "gs://$state_bucket/kept-*.tsv" 2>/dev/null || true; } | sort -u; }

# Import it, so that it is not created a second time. What the present settings do not name stays on the list.
take_up_kept() {
    local address id known lists
    kept >"$scratch/kept.tsv"
    [ -s "$scratch/kept.tsv" ] || return 0
    if [ "$action" = plan ]; then
        say "kept by --destroy: $(cut -f 2 "$scratch/kept.tsv" | tr '\n' ' '); a deployment uses again what the settings name, but the plan shows it as created"
        return
    fi
    known=$(tf state list 2>/dev/null || true)
    : >"$scratch/unused.tsv"
    while IFS=$'\t' read -r address id; do
        [ -n "$address" ] || continue
        grep -qxF "$address" <<<"$known" || take_up "$address" "$id"
    done <"$scratch/kept.tsv"
    [ "$(<"$scratch/unused.tsv")" != "$(<"$scratch/kept.tsv")" ] || return 0
    lists=$(gcloud storage ls "gs://$state_bucket/kept-*.tsv") || die "could not list gs://$state_bucket/kept-*.tsv"
    [ ! -s "$scratch/unused.tsv" ] || write_kept "$scratch/unused.tsv"
    # Names of lists have no spaces.
    # shellcheck disable=SC2086
    gcloud storage rm $lists --quiet >/dev/null
}

take_up() { # ADDRESS, ID
    if tf import -input=false -no-color "${variables[@]}" "$1" "$2" >"$scratch/import" 2>&1 </dev/null; then
        say "using again: $2"
    elif grep -q -e "Configuration for import target does not exist" -e "does not exist in the configuration" "$scratch/import"; then
        say "not used: $2 (the present settings do not name it; it stays on the list of what is kept)"
        printf '%s\t%s\n' "$1" "$2" >>"$scratch/unused.tsv"
    else
        cat "$scratch/import" >&2
        die "could not import $2, see above. fix that and run this again. If you have deleted it yourself, delete its line in gs://$state_bucket/kept-*.tsv"
    fi
}

write_kept() { # FILE
    local list
    list="gs://$state_bucket/kept-$(date +%s)-$RANDOM.tsv"
    gcloud storage cp "$1" "$list" --quiet >/dev/null 2>&1 || die "could not write $list; run the same command again"
}
