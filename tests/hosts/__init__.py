"""A pool of several hosts on one machine, each as if it were a machine of its own.

    switch, 10.77.0.1             between them; the S3 server, and who tests
    central-manager, 10.77.0.2    collector, negotiator
    access-point, 10.77.0.3       schedd; the project and its Python, alice's files
    execution-1, … 10.77.0.4 …    startd; no project, no file of another host

A host is a process in namespaces of the Linux kernel, and those that it started: a
host name, processes, mounts and a network of its own. Its disk is a directory, into
which a test can look; its programs are those of ``/usr`` of the real machine, which
it cannot change. What jobs write lies on a disk of its own, of a limited size.

No host has a way out of the private network, and nothing of the real one is touched;
two such pools may run side by side. All is gone with the processes, and they end
with the tests, however those end.

On the access point all is run by alice, on the others by the user condor, as where
pilots bring HTCondor along. Not by root: the file transfer of HTCondor 23.9.6
(Debian 13) was seen to write a job's first file as the job's user and the second
one as ``condor``, which is refused, on execution points and on the access point.

``hosts`` has what a host is, ``network`` what joins them, ``pool`` the HTCondor on
them. It needs root, and a kernel that lets root make namespaces.
"""
