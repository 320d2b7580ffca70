#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Makes ./configure and Makefile.in.
cd "$(dirname "$0")" && exec autoreconf --install --warnings=all,no-obsolete
