"""A DICOM store of the Cloud Healthcare API on one machine: DICOMweb over SQLite and files.

In the order in which a request passes:

- `__main__`: the command line, `python -m infra.local.dicomstore`; `choices`: its options, and the
  choices where no source says what the service does.
- `server`: HTTP over sockets; `cors`: pages of other origins; `faults`: faults on demand.
- `app`: authentication, errors, and the transactions store, search and delete; `urls`: the paths;
  `media`: Accept headers and the shapes of errors.
- Store: `stow` reads bodies, `stow_json` those of DICOM JSON and bulk parts; `scan` finds a file's
  elements, `model` makes DICOM JSON of them, `attributes` selects those for searches.
- Search: `search`.
- Retrieve: `retrieve` has the views, `wado` instances, metadata and bulk data, `nativexml` the XML.
- Pixels: `frames` finds each frame, `codestream` reads its header, `decode` and `encode` call the
  codecs; `pixels` returns frames, `rendered` images, `transcode` whole instances, written by
  `rewrite`; `slices` reads large values piece by piece.
- The rest of the API: `resources` (datasets, stores, operations), `storage` (metrics, classes);
  `rest` is shared by them, `operations` are long-running, `notify` publishes notifications.
- Storage: `database` (SQLite and files), `rows`, `index` (instances), `stores`.
"""
