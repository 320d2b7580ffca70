#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A shell session at a terminal: `pangea shell` in tmux on the host, then tmux in the machine.
#
#	tmux (host) -- terminal -- pangea shell -- machine: shell on CPU 0
#	                                             +- jobs on CPU 1, CPU 2

. "${SOURCE:?tests/run starts this}/tests/lib.sh"

command -v tmux >/dev/null || { skip "terminal" "there is no tmux"; exit 0; }

terminal() { tmux -f /dev/null -S "$WORK/tmux" "$@"; }
screen() { terminal capture-pane -p | grep -v '^$'; }
type_line() { terminal send-keys -l "$1" && terminal send-keys Enter; }
shows() { screen | grep -qE -- "$1"; }

expect_screen() {
	wait_for "${2:-120}" shows "$1" || { screen; fatal "the screen does not show '$1'"; }
}

# Types a command and waits for its answer.
ask() {
	type_line "$1"
	expect_screen "$2"
}

open_shell() {
	terminal new-session -d -x 100 -y 30 "SHELL=/bin/bash PS1='host> ' bash --norc" ||
		fatal "tmux: status $?"
	expect_screen '^host>$'
	type_line "HOME=$WORK SHELL=/bin/bash $PANGEA shell; echo status=\$?"
	wait_for 240 shows '[#$]$' || { screen; fatal "no prompt"; }
	type_line "PS1='in> '; clear"
	expect_screen '^in>$'
}

session() {
	ask 'echo CPUs: $(nproc)' '^CPUs: 3$'
	ask 'tty; test -t 0 -a -t 1 -a -t 2 && echo all terminals' '^all terminals$'
	ask 'stty size' '^30 100$'
	terminal resize-window -x 90 -y 25
	ask 'stty size' '^25 90$'
	ask 'read -n 3 -p "keys: " x; echo; echo "got <$x>"' 'keys: '
	terminal send-keys a Tab b
	expect_screen '^got <a.*b>$'
	terminal send-keys -l 'echo wrogn'
	terminal send-keys BSpace BSpace BSpace
	ask 'ong' '^wrong$'
}

interrupt() {
	type_line 'clear; taskset -c 1 sh -c "echo running; while :; do :; done"'
	expect_screen '^running$'
	terminal send-keys C-c
	ask 'echo after=$?' '^after=130$'
	type_line 'clear; taskset -c 2 cat'
	type_line 'a line'
	expect_screen '^a line$'
	terminal send-keys C-d
	ask 'echo cat=$?' '^cat=0$'
}

job_control() {
	type_line 'clear; taskset -c 1 sh -c "echo running; while :; do :; done"'
	expect_screen '^running$'
	terminal send-keys C-z
	expect_screen 'Stopped'
	ask 'bg; sleep 0.3; jobs' 'Running.*taskset'
	ask 'taskset -cp 2 $(pgrep -n -f "while :") >/dev/null; ps -o stat= -C sh' '^R'
	type_line 'clear; fg'
	expect_screen '^taskset -c 1'
	terminal send-keys 'C-\'
	ask 'echo "quit=$?"' '^quit=131$'
	ask 'jobs; echo none left' '^none left$'
}

full_screen() {
	type_line 'top -d 1'
	expect_screen 'PID +USER'
	terminal send-keys q
	type_line 'clear'
	expect_screen '^in>$'
	type_line "printf '%s\\n' \$(seq 200) | less"
	expect_screen '^:$'
	terminal send-keys G
	expect_screen '^200$'
	terminal send-keys q
	type_line 'clear'
	expect_screen '^in>$'
}

inner_tmux() {
	type_line "tmux -f /dev/null -S /tmp/inner new-session 'PS1=inner: sh'"
	expect_screen '^inner:'
	type_line 'taskset -c 2 sh -c "echo inside on CPU \$(cut -d\  -f39 /proc/self/stat)"'
	expect_screen '^inside on CPU 2'
	type_line 'exit'
	expect_screen '\[exited\]'
}

leave() {
	type_line 'clear; exit 42'
	expect_screen '^status=42$'
	ask 'stty -a | tr ";" "\n" | grep -w echo; echo end' '(^| )echo( |$)'
	terminal kill-server
}

check "a shell starts with a prompt" open_shell || { terminal kill-server; exit 1; }
check "the terminal's size, keys and modes" session
check "control-C and control-D reach remote jobs" interrupt
check "job control of a remote job" job_control
check "full-screen programs" full_screen
check "tmux in the machine" inner_tmux
check "exit gives the status and the terminal back" leave
terminal kill-server 2>/dev/null
check "nothing is left" nothing_kept
