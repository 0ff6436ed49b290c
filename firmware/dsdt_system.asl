/* Devices of both boards that are on no bus; included in \_SB. */
Device (HPET)
{
    Name (_HID, EisaId ("PNP0103"))
    Name (_UID, 0)
    Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadOnly, 0xfed00000, 0x00000400) })
}
Device (FWCF)
{
    Name (_HID, "QEMU0002")
    Name (_STA, 0x0b)
    Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0510, 0x0510, 1, 0x0c) })
}
