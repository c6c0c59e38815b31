#!/bin/sh
# Collect what the pictures are drawn with into one folder (default .fonts): the font files of fonts.txt out of
# their Debian packages, and the word list of wamerican. Nothing is installed.
#   tools/tiny/fonts.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-.fonts}
mkdir -p "$out"
out=$(cd "$out" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
cd "$tmp"
apt-get download -q $(grep -v '^#' "$here/fonts.txt" | awk '{print $2}' | sort -u) wamerican
for deb in *.deb; do dpkg -x "$deb" x; done
# One list of "name without spaces <tab> path": Debian's file names may hold spaces, ours do not.
find x -type f -name '*.[ot]tf' | awk -F/ '{n = $NF; gsub(/ /, "", n); print n "\t" $0}' > list
grep -v '^#' "$here/fonts.txt" | while read -r half package file; do
    path=$(awk -F'\t' -v n="$file" '$1 == n {print $2; exit}' list)
    if [ -n "$path" ]; then cp "$path" "$out/$file"; else echo "missing: $package $file ($half)" >&2; fi
done
grep -E '^[A-Za-z]{2,12}$' x/usr/share/dict/american-english > "$out/words.txt"
ls "$out" | wc -l
