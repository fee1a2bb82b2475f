"""Transfer: links as files, those of other shorteners and our own. Pure; nothing here asks a database.

reading = read(file)               # reading.py: what the file is, or NotReadable
reading.format.name                # "Dub, CSV of links"
for found in reading.rows():       # Row or Refused, in the order of the file, in constant memory
    ...
reading.used, reading.ignored      # which of its columns became what, and which did not

file.write(CSV_HEAD)               # writing.py: our own export, a batch at a time
file.write(to_csv(links))
file.write(to_json_lines(links))

rows.py       what comes out of a file           formats.py    who writes what: columns, and how they are known
texts.py      from bytes to UTF-8 and to lines   values.py     what columns say, as fields of a link
cells.py      from lines to rows of CSV          objects.py    from bytes to the objects of a JSON document
"""
