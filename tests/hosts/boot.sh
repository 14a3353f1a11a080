#!/bin/sh
# The first program of a host, in its new namespaces:
#
#   boot.sh DISK NAME
#
# mounts the lines of DISK/etc/fstab, makes DISK the root, reports that the host is up,
# and stays. When it ends, the kernel ends all other processes of the host.
set -eu
disk=$1 name=$2
umask 022
# The process id outside, while the outer /proc is still mounted.
read -r number _ </proc/self/stat
echo "$name" >/proc/sys/kernel/hostname
# Notice within seconds, not a quarter of an hour, that another host is gone.
cd /proc/sys/net/ipv4
echo 5 >tcp_keepalive_time
echo 2 >tcp_keepalive_intvl
echo 3 >tcp_keepalive_probes
echo 5 >tcp_retries2
mount --bind "$disk" "$disk"
mount --all --fstab "$disk/etc/fstab" --target-prefix "$disk"
# Settings there would change the real machine.
mount --bind "$disk/proc/sys" "$disk/proc/sys"
mount --options remount,bind,ro "$disk/proc/sys"
cd "$disk"
pivot_root . outside
umount --lazy /outside
echo "$number"
exec >/dev/null 2>&1 </dev/null
# Orphans become children of this process, which waits for them.
while :; do sleep 5; done
