/* The DSDT of the i440FX board (ACPI 6.4); see dsdt.asl.
 *
 * PCI interrupts: the wiring is pirq_map() in devices/board/i440fx.c: pin p (A = 0) of slot s is PIRQ (s + p - 1) & 3, which the ISA
 * bridge routes to an ISA interrupt; the 8259s and the IOAPIC both get that. */
DefinitionBlock ("dsdt_pc.aml", "DSDT", 2, "EIDOLN", "EIDOLON", 1)
{
    Name (\_S5, Package () { 0, 0, 0, 0 })  /* ACPI_S5_SLP_TYP of devices/board/acpi_pm.h */

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)

            /* acpi.c fills in the 64-bit window, the first QWord descriptor in this table. */
            Name (_CRS, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                             0, 0x8000000000, 0x8fffffffff, 0, 0x1000000000)
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xff, 0, 0x100)
                IO (Decode16, 0x0cf8, 0x0cf8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0000, 0x0cf7, 0, 0x0cf8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0d00, 0xadff, 0, 0xa100)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0xae18, 0xafdf, 0, 0x01c8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0xafe4, 0xffff, 0, 0x501c)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                             0, 0x000a0000, 0x000bffff, 0, 0x00020000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                             0, 0x80000000, 0xfebfffff, 0, 0x7ec00000)
            })

#define SLOT(address, a, b, c, d) \
            Package () { address, 0, a, 0 }, Package () { address, 1, b, 0 }, \
            Package () { address, 2, c, 0 }, Package () { address, 3, d, 0 }
#define SLOT0(address) SLOT (address, LNKD, LNKA, LNKB, LNKC)
#define SLOT1(address) SLOT (address, LNKA, LNKB, LNKC, LNKD)
#define SLOT2(address) SLOT (address, LNKB, LNKC, LNKD, LNKA)
#define SLOT3(address) SLOT (address, LNKC, LNKD, LNKA, LNKB)
            Name (_PRT, Package ()
            {
                SLOT0 (0x0000ffff), SLOT1 (0x0001ffff), SLOT2 (0x0002ffff), SLOT3 (0x0003ffff),
                SLOT0 (0x0004ffff), SLOT1 (0x0005ffff), SLOT2 (0x0006ffff), SLOT3 (0x0007ffff),
                SLOT0 (0x0008ffff), SLOT1 (0x0009ffff), SLOT2 (0x000affff), SLOT3 (0x000bffff),
                SLOT0 (0x000cffff), SLOT1 (0x000dffff), SLOT2 (0x000effff), SLOT3 (0x000fffff),
                SLOT0 (0x0010ffff), SLOT1 (0x0011ffff), SLOT2 (0x0012ffff), SLOT3 (0x0013ffff),
                SLOT0 (0x0014ffff), SLOT1 (0x0015ffff), SLOT2 (0x0016ffff), SLOT3 (0x0017ffff),
                SLOT0 (0x0018ffff), SLOT1 (0x0019ffff), SLOT2 (0x001affff), SLOT3 (0x001bffff),
                SLOT0 (0x001cffff), SLOT1 (0x001dffff), SLOT2 (0x001effff), SLOT3 (0x001fffff)
            })

            /* The PIIX4's power management function: its registers say which serial ports there are. */
            Device (PX13)
            {
                Name (_ADR, 0x00010003)
                OperationRegion (P13C, PCI_Config, 0x00, 0x100)
            }
            /* The PIIX3's ISA bridge and the devices behind it. */
            Device (ISA)
            {
                Name (_ADR, 0x00010000)
                OperationRegion (ISAC, PCI_Config, 0x60, 0x04)
                Field (ISAC, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8, PRQB, 8, PRQC, 8, PRQD, 8
                }
                Field (^PX13.P13C, ByteAcc, NoLock, Preserve)
                {
                    Offset (0x67), , 3, CMAE, 1, , 3, CMBE, 1
                }
                Name (KBCE, 1)
#include "dsdt_isa.asl"
            }

            /* ACPI PCI hot-plug: registers of devices/board/acpi_pcihp.c, which are QEMU's. */
            OperationRegion (PCST, SystemIO, 0xae00, 0x08)
            Field (PCST, DWordAcc, NoLock, WriteAsZeros)
            {
                PCIU, 32, PCID, 32
            }
            OperationRegion (SEJ, SystemIO, 0xae08, 0x04)
            Field (SEJ, DWordAcc, NoLock, WriteAsZeros)
            {
                B0EJ, 32
            }
            OperationRegion (BNMR, SystemIO, 0xae10, 0x04)
            Field (BNMR, DWordAcc, NoLock, WriteAsZeros)
            {
                BNUM, 32
            }
            Mutex (BLCK, 0)
            Method (PCEJ, 1)
            {
                Acquire (BLCK, 0xffff)
                BNUM = 0
                B0EJ = 1 << Arg0
                Release (BLCK)
            }
#define HOTPLUG_SLOT(name, slot) \
            Device (name) \
            { \
                Name (_ADR, slot << 16) \
                Name (_SUN, slot) \
                Method (_EJ0, 1) { PCEJ (slot) } \
            }
            HOTPLUG_SLOT (S02, 0x02) HOTPLUG_SLOT (S03, 0x03) HOTPLUG_SLOT (S04, 0x04) HOTPLUG_SLOT (S05, 0x05)
            HOTPLUG_SLOT (S06, 0x06) HOTPLUG_SLOT (S07, 0x07) HOTPLUG_SLOT (S08, 0x08) HOTPLUG_SLOT (S09, 0x09)
            HOTPLUG_SLOT (S0A, 0x0a) HOTPLUG_SLOT (S0B, 0x0b) HOTPLUG_SLOT (S0C, 0x0c) HOTPLUG_SLOT (S0D, 0x0d)
            HOTPLUG_SLOT (S0E, 0x0e) HOTPLUG_SLOT (S0F, 0x0f) HOTPLUG_SLOT (S10, 0x10) HOTPLUG_SLOT (S11, 0x11)
            HOTPLUG_SLOT (S12, 0x12) HOTPLUG_SLOT (S13, 0x13) HOTPLUG_SLOT (S14, 0x14) HOTPLUG_SLOT (S15, 0x15)
            HOTPLUG_SLOT (S16, 0x16) HOTPLUG_SLOT (S17, 0x17) HOTPLUG_SLOT (S18, 0x18) HOTPLUG_SLOT (S19, 0x19)
            HOTPLUG_SLOT (S1A, 0x1a) HOTPLUG_SLOT (S1B, 0x1b) HOTPLUG_SLOT (S1C, 0x1c) HOTPLUG_SLOT (S1D, 0x1d)
            HOTPLUG_SLOT (S1E, 0x1e) HOTPLUG_SLOT (S1F, 0x1f)
#define TELL(name, slot) \
                If (Arg0 & (1 << slot)) \
                { \
                    Notify (name, Arg1) \
                }
            Method (DVNT, 2)
            {
                TELL (S02, 0x02) TELL (S03, 0x03) TELL (S04, 0x04) TELL (S05, 0x05) TELL (S06, 0x06)
                TELL (S07, 0x07) TELL (S08, 0x08) TELL (S09, 0x09) TELL (S0A, 0x0a) TELL (S0B, 0x0b)
                TELL (S0C, 0x0c) TELL (S0D, 0x0d) TELL (S0E, 0x0e) TELL (S0F, 0x0f) TELL (S10, 0x10)
                TELL (S11, 0x11) TELL (S12, 0x12) TELL (S13, 0x13) TELL (S14, 0x14) TELL (S15, 0x15)
                TELL (S16, 0x16) TELL (S17, 0x17) TELL (S18, 0x18) TELL (S19, 0x19) TELL (S1A, 0x1a)
                TELL (S1B, 0x1b) TELL (S1C, 0x1c) TELL (S1D, 0x1d) TELL (S1E, 0x1e) TELL (S1F, 0x1f)
            }
            Method (PCNT, 0)
            {
                BNUM = 0
                DVNT (PCIU, 1)
                DVNT (PCID, 3)
            }
        }

#include "dsdt_link.asl"
        LINK (LNKA, 0, PRQA)
        LINK (LNKB, 1, PRQB)
        LINK (LNKC, 2, PRQC)
        LINK (LNKD, 3, PRQD)

#include "dsdt_system.asl"
        /* What is taken but belongs to no driver: ports of the chip set. */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x0061, 0x0061, 1, 1)
                IO (Decode16, 0x0080, 0x0080, 1, 1)
                IO (Decode16, 0x0092, 0x0092, 1, 1)
                IO (Decode16, 0x00b2, 0x00b2, 1, 2)
                IO (Decode16, 0x0600, 0x0600, 1, 0x40)
                IO (Decode16, 0xae00, 0xae00, 1, 0x18)
                IO (Decode16, 0xafe0, 0xafe0, 1, 0x04)
            })
        }
    }

    Scope (\_GPE)
    {
        Name (_HID, "ACPI0006")
        Method (_E01)
        {
            Acquire (\_SB.PCI0.BLCK, 0xffff)
            \_SB.PCI0.PCNT ()
            Release (\_SB.PCI0.BLCK)
        }
    }
}
