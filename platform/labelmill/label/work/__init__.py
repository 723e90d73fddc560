"""The way of a picture from its bytes to its row, in the processes that do it; none of it knows Ray.

`stage` says what to do with a chunk of the to-do list, `cores` turns one into a data file of the table, `gpus` does it
in three steps, `fetch` reads what it names, `attempts` ends what kills its process, and a `chunk` is what the driver
hears of it: a few hundred bytes. Nothing of the run's account is known here; `spread`, the preview's rehearsal and the
receipt import it.
"""
