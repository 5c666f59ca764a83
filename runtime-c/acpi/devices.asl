/* What can an OS do on a host that is no q35? Soft off, and a serial port. The firmware writes sleep type, port and
 * interrupt, as its flow has them (runtime-c/src/dsdt.c). */
DefinitionBlock ("", "DSDT", 2, "TDFRG ", "TDFORGE ", 1)
{
    Name (\_S5, Package (4) { 5, 0, 0, 0 })

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
}
