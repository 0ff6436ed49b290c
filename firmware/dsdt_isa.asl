/* ISA devices of both boards; included inside the ISA bridge's scope, which has the fields CMAE, CMBE, KBCE: 1 if COM1,
 * COM2 and the keyboard controller are there. */
/* iasl has no conditional expression. */
#define STA_IF(field) \
Method (_STA) \
{ \
    If (field) \
    { \
        Return (0x0f) \
    } \
    Return (0) \
}

Device (PIC)
{
    Name (_HID, EisaId ("PNP0000"))
    Name (_CRS, ResourceTemplate ()
    {
        IO (Decode16, 0x0020, 0x0020, 1, 2)
        IO (Decode16, 0x00a0, 0x00a0, 1, 2)
        IO (Decode16, 0x04d0, 0x04d0, 1, 2)
        IRQNoFlags () { 2 }
    })
}
Device (TIMR)
{
    Name (_HID, EisaId ("PNP0100"))
    Name (_CRS, ResourceTemplate ()
    {
        IO (Decode16, 0x0040, 0x0040, 1, 4)
        IRQNoFlags () { 0 }
    })
}
Device (RTC)
{
    Name (_HID, EisaId ("PNP0B00"))
    Name (_CRS, ResourceTemplate ()
    {
        IO (Decode16, 0x0070, 0x0070, 1, 2)
        IRQNoFlags () { 8 }
    })
}
Device (KBD)
{
    Name (_HID, EisaId ("PNP0303"))
    STA_IF (KBCE)
    Name (_CRS, ResourceTemplate ()
    {
        IO (Decode16, 0x0060, 0x0060, 1, 1)
        IO (Decode16, 0x0064, 0x0064, 1, 1)
        IRQNoFlags () { 1 }
    })
}
Device (MOU)
{
    Name (_HID, EisaId ("PNP0F13"))
    STA_IF (KBCE)
    Name (_CRS, ResourceTemplate () { IRQNoFlags () { 12 } })
}
Device (COM1)
{
    Name (_HID, EisaId ("PNP0501"))
    Name (_UID, 1)
    STA_IF (CMAE)
    Name (_CRS, ResourceTemplate ()
    {
        IO (Decode16, 0x03f8, 0x03f8, 1, 8)
        IRQNoFlags () { 4 }
    })
}
Device (COM2)
{
    Name (_HID, EisaId ("PNP0501"))
    Name (_UID, 2)
    STA_IF (CMBE)
    Name (_CRS, ResourceTemplate ()
    {
        IO (Decode16, 0x02f8, 0x02f8, 1, 8)
        IRQNoFlags () { 3 }
    })
}
