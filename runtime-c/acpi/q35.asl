/* What can an OS do on QEMU's q35? A serial port, a PCI host bridge, and soft off. The 64-bit window is written by the
 * firmware, which knows where RAM ends (runtime-c/src/q35.c). */
DefinitionBlock ("", "DSDT", 2, "TDFRG ", "TDFORGE ", 1)
{
    Name (\_S5, Package (4) { 0, 0, 0, 0 })

    Device (\_SB.COM1)
    {
        Name (_HID, EisaId ("PNP0501"))
        Name (_UID, 1)
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0x3F8, 0x3F8, 0, 8)
            IRQNoFlags () { 4 }
        })
    }

    Device (\_SB.PCI0)
    {
        Name (_HID, EisaId ("PNP0A08"))
        Name (_CID, EisaId ("PNP0A03"))
        Name (_UID, 0)
        Name (_CRS, ResourceTemplate ()
        {
            WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
            IO (Decode16, 0xCF8, 0xCF8, 1, 8)
            WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x1000, 0xFFFF, 0, 0xF000)
            DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                0, 0xC0000000, 0xDFFFFFFF, 0, 0x20000000)
            QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                0, 0x800000000, 0xFFFFFFFFF, 0, 0x800000000)
        })
    }
}
