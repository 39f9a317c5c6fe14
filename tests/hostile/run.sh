#!/bin/sh
# Runs PROGRAM SESSIONS CONNECTIONS SEED on all recorded sessions there are.
set -eu
corpus=$(dirname "$0")/../fuzz/corpus
# Meson says how programs for another machine are run.
exec ${MESON_EXE_WRAPPER-} "$@" $(find "$corpus/session" "$corpus/mta" -type f 2>/dev/null | sort)
