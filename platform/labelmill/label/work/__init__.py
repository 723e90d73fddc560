"""The way of a picture from its bytes to its row, and how Ray spreads it over a cluster.

`pipeline` hands out chunks of the to-do list, `stage` turns one into a data file of the table, `fetch` reads what it
names, `attempts` ends what kills its process, and a `chunk` is what the driver hears of it: a few hundred bytes.
Nothing of the run's account is known here; the job, its preview's rehearsal and the receipt import it.
"""
