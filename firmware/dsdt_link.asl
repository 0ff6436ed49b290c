/* Interrupt link devices: each is one routing register of the ISA bridge \_SB.PCI0.ISA. */
Method (LSTA, 1)
{
    If (Arg0 & 0x80)
    {
        Return (0x09)
    }
    Return (0x0b)
}
Name (LRES, ResourceTemplate ()
{
    Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 0 }
})
Method (LCRS, 1, Serialized)
{
    CreateDWordField (LRES, 5, IRQN)
    IRQN = 0
    If (!(Arg0 & 0x80))
    {
        IRQN = Arg0 & 0x0f
    }
    Return (LRES)
}
#define LINK(name, uid, field) \
Device (name) \
{ \
    Name (_HID, EisaId ("PNP0C0F")) \
    Name (_UID, uid) \
    Name (_PRS, ResourceTemplate () \
    { \
        Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 } \
    }) \
    Method (_STA) { Return (LSTA (^^PCI0.ISA.field)) } \
    Method (_DIS) { ^^PCI0.ISA.field |= 0x80 } \
    Method (_CRS) { Return (LCRS (^^PCI0.ISA.field)) } \
    Method (_SRS, 1) \
    { \
        CreateDWordField (Arg0, 5, PRRI) \
        ^^PCI0.ISA.field = PRRI \
    } \
}
