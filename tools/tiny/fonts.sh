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
grep -v '^#' "$here/fonts.txt" | while read -r half package file; do
    # Debian's file name may hold spaces; ours does not.
    find x -type f | while read -r path; do
        [ "$(basename "$path" | tr -d ' ')" = "$file" ] && cp "$path" "$out/$file" && break
    done || echo "missing: $package $file ($half)" >&2
done
grep -E '^[A-Za-z]{2,12}$' x/usr/share/dict/american-english > "$out/words.txt"
ls "$out" | wc -l
