"""The embedded world: captioned images of one or two coloured shapes, and a reader of them.

`scene` says what there is to show, `outline` how the shapes look, `caption` says it in words and
understands them, `render` draws it, `reader` turns pixels back into words without knowing how they
were drawn, `data` numbers the examples of the endless data set. Needs numpy and scipy only.
"""
