"""The command `dicom-functions`: what a person does, on this machine's system and on a deployed
one.

In the order in which a call passes: app (commands, and how an error ends), options, system (which
one), clients (Google's libraries for it), the command's own file, output (table, CSV, JSON; text
makes data printable).

    run, demo, viewer       the system on this machine (study_counts: for the viewer's list)
    upload, search          scans in, and found again
    orders                  export and delete
    outcomes, watch         what became of the inputs
    quarantine              what can never be stored
    dead_letters            what failed too often
    doctor                  with findings, checks, rights (and needs), probe (and scan, limits)
    reconcile, replay       what was missed, and what is tried again after a fix
    env                     for gcloud and client libraries
    conformance             what a real DICOM store does, where no source says it

deploy.sh runs `cli.scan` and `cli.limits` with the standard library alone.
"""
