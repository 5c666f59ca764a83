#!/bin/bash
n=$1; shift
time timeout 300 /work/dev/venv/bin/python -m tdforge run b2/linux.bin --kernel /work/dev/kpkg/boot/vmlinuz-6.12.117+deb12-cloud-amd64 --initrd ../us/initrd --memory 1G --vcpus $n --cmdline "${CMD:-console=ttyS0 earlyprintk=serial,ttyS0,115200 nokaslr no5lvl mce=off pci=off noapic 8250.nr_uarts=1}" --until "console:${TXT:-Power down}" "$@" 
