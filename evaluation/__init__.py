"""What a trained model is worth: one protocol a file, each with pure metrics and a thin `drive`.

`evaluation` is their registry and the cache of results; `arguments` holds what tables write down;
`images`, `models`, `foreground` (attention of the class token) and `scenes` (segmentation) serve several files.
"""
