#!/bin/sh
# What a host does first, alone in its new namespaces:
#
#   boot.sh DISK NAME
#
# mounts what DISK/etc/fstab lists, makes DISK the root of all, says that it is up,
# and stays, as the process whose end is the end of all others.
set -eu
disk=$1 name=$2
umask 022
# This process's number outside, as long as the /proc of outside is there.
read -r number _ </proc/self/stat
echo "$name" >/proc/sys/kernel/hostname
# To know within seconds, not quarters of an hour, that another host is gone.
cd /proc/sys/net/ipv4
echo 5 >tcp_keepalive_time
echo 2 >tcp_keepalive_intvl
echo 3 >tcp_keepalive_probes
echo 5 >tcp_retries2
mount --bind "$disk" "$disk"
mount --all --fstab "$disk/etc/fstab" --target-prefix "$disk"
# What is set there is set for the real machine.
mount --bind "$disk/proc/sys" "$disk/proc/sys"
mount --options remount,bind,ro "$disk/proc/sys"
cd "$disk"
pivot_root . outside
umount --lazy /outside
echo "$number"
exec >/dev/null 2>&1 </dev/null
# Whom nobody waits for any more is the child of this one, and waited for here.
while :; do sleep 5; done
