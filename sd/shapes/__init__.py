"""The data of the embedded model: captioned images of coloured shapes, and a rule-based reader.

`scene` samples scenes, `outline` defines the shapes, `caption` writes and parses captions, `render`
makes the image, `data` numbers the examples. `reader` describes an image from its pixels; it shares
no code with `render`. Needs numpy and scipy only.
"""
