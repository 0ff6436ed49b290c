/* Registers and bits of the 82574L ("Intel 82574 GbE Controller Family Datasheet", chapter 10), with its names. */
#ifndef EIDOLON_DEVICES_NET_E1000E_REGISTERS_H
#define EIDOLON_DEVICES_NET_E1000E_REGISTERS_H

#include "base/types.h"

enum e1000e_register {
    CTRL = 0x0000,
    STATUS = 0x0008,
    EECD = 0x0010,
    EERD = 0x0014,
    CTRL_EXT = 0x0018,
    MDIC = 0x0020,
    FCAL = 0x0028,
    FCAH = 0x002c,
    FCT = 0x0030,
    VET = 0x0038,
    ICR = 0x00c0,
    ITR = 0x00c4,
    ICS = 0x00c8,
    IMS = 0x00d0,
    IMC = 0x00d8,
    EIAC = 0x00dc,
    IAM = 0x00e0,
    IVAR = 0x00e4,
    EITR = 0x00e8, /* 5 */
    RCTL = 0x0100,
    FCTTV = 0x0170,
    TCTL = 0x0400,
    TIPG = 0x0410,
    AIT = 0x0458,
    LEDCTL = 0x0e00,
    EXTCNF_CTRL = 0x0f00,
    PBA = 0x1000,
    PBS = 0x1008,
    EEMNGCTL = 0x1010,
    RDFH = 0x2410,
    PSRCTL = 0x2170,
    FCRTL = 0x2160,
    FCRTH = 0x2168,
    RDBAL = 0x2800, /* queue 1: + 0x100 */
    RDBAH = 0x2804,
    RDLEN = 0x2808,
    RDH = 0x2810,
    RDT = 0x2818,
    RDTR = 0x2820,
    RXDCTL = 0x2828,
    RADV = 0x282c,
    RSRPD = 0x2c00,
    RAID = 0x2c08,
    TDFH = 0x3410,
    TDBAL = 0x3800, /* queue 1: + 0x100 */
    TDBAH = 0x3804,
    TDLEN = 0x3808,
    TDH = 0x3810,
    TDT = 0x3818,
    TIDV = 0x3820,
    TXDCTL = 0x3828,
    TADV = 0x382c,
    TARC = 0x3840,
    STATISTICS = 0x4000, /* to 0x4124; cleared by reading */
    RNBC = 0x40a0,
    MPC = 0x4010,
    PRC64 = 0x405c, /* six sizes, received good */
    GPRC = 0x4074,
    BPRC = 0x4078,
    MPRC = 0x407c,
    GPTC = 0x4080,
    GORCL = 0x4088,
    GORCH = 0x408c,
    GOTCL = 0x4090,
    GOTCH = 0x4094,
    RUC = 0x40a4,
    ROC = 0x40ac,
    TORL = 0x40c0,
    TORH = 0x40c4,
    TOTL = 0x40c8,
    TOTH = 0x40cc,
    TPR = 0x40d0,
    TPT = 0x40d4,
    PTC64 = 0x40d8, /* six sizes, sent */
    MPTC = 0x40f0,
    BPTC = 0x40f4,
    TSCTC = 0x40f8,
    IAC = 0x4100,
    STATISTICS_END = 0x4128,
    RXCSUM = 0x5000,
    RFCTL = 0x5008,
    MTA = 0x5200, /* 128 */
    RAL = 0x5400, /* 16 pairs RAL, RAH */
    RAH = 0x5404,
    VFTA = 0x5600, /* 128 */
    WUC = 0x5800,
    MRQC = 0x5818,
    MANC = 0x5820,
    RETA = 0x5c00,  /* 32 */
    RSSRK = 0x5c80, /* 10 */
    GCR = 0x5b00,
    SWSM = 0x5b50,
    FWSM = 0x5b54,
    REGISTERS_END = 0x6000,
    SYSTIML = 0xb600,
    SYSTIMH = 0xb604,
    TIMINCA = 0xb608,
    TIME_BASE = 0xb600, /* 16 registers */
    TIME_END = 0xb640,
};

enum {
    CTRL_GIO_MASTER_DISABLE = 1 << 2,
    CTRL_SLU = 1 << 6,
    CTRL_RST = 1 << 26,
    CTRL_VME = 1 << 30,
};
#define CTRL_PHY_RST 0x80000000u
enum {
    STATUS_FD = 1 << 0,
    STATUS_LU = 1 << 1,
    STATUS_SPEED_1000 = 1 << 7,
    STATUS_PHYRA = 1 << 10,
    STATUS_GIO_MASTER_ENABLE = 1 << 19,
};
enum { EECD_PRESENT = 1 << 8, EECD_AUTO_RD = 1 << 9, EECD_REQUEST = 1 << 6, EECD_GRANT = 1 << 7 };
enum { EERD_START = 1 << 0, EERD_DONE = 1 << 1 };
enum {
    CTRL_EXT_ASDCHK = 1 << 12,
    CTRL_EXT_EE_RST = 1 << 13,
    CTRL_EXT_EIAME = 1 << 24,
    CTRL_EXT_IAME = 1 << 27,
    CTRL_EXT_TIMERS_CLEAR = 1 << 29,
};
enum { MDIC_READY = 1 << 28, MDIC_INTERRUPT = 1 << 29, MDIC_ERROR = 1 << 30 };
enum {
    INT_TXDW = 1 << 0,
    INT_TXQE = 1 << 1,
    INT_LSC = 1 << 2,
    INT_RXDMT0 = 1 << 4,
    INT_RXO = 1 << 6,
    INT_RXT0 = 1 << 7,
    INT_MDAC = 1 << 9,
    INT_TXD_LOW = 1 << 15,
    INT_SRPD = 1 << 16,
    INT_ACK = 1 << 17,
    INT_MNG = 1 << 18,
    INT_RXQ0 = 1 << 20,
    INT_RXQ1 = 1 << 21,
    INT_TXQ0 = 1 << 22,
    INT_TXQ1 = 1 << 23,
    INT_OTHER = 1 << 24,
    INT_OTHER_CAUSES = INT_LSC | INT_RXO | INT_MDAC | INT_SRPD | INT_ACK | INT_MNG,
    INT_QUEUES = INT_RXQ0 | INT_RXQ1 | INT_TXQ0 | INT_TXQ1,
};
#define INT_ASSERTED 0x80000000u
#define INT_WRITABLE 0x01f7ffffu
enum {
    RCTL_EN = 1 << 1,
    RCTL_SBP = 1 << 2,
    RCTL_UPE = 1 << 3,
    RCTL_MPE = 1 << 4,
    RCTL_LPE = 1 << 5,
    RCTL_LBM = 3 << 6,
    RCTL_BAM = 1 << 15,
    RCTL_VFE = 1 << 18,
    RCTL_BSEX = 1 << 25,
    RCTL_SECRC = 1 << 26,
};
enum { TCTL_EN = 1 << 1, TCTL_PSP = 1 << 3 };
enum { RFCTL_EXSTEN = 1 << 15 };
enum { RXCSUM_IPOFL = 1 << 8, RXCSUM_TUOFL = 1 << 9, RXCSUM_PCSD = 1 << 13 };
#define RDTR_FPD     0x80000000u
#define RAH_VALID    0x80000000u
#define IVAR_TX_EACH 0x80000000u

/* Transmit descriptors (7.2) */
enum {
    TXD_EOP = 1 << 24,
    TXD_IFCS = 1 << 25,
    TXD_IC = 1 << 26,  /* legacy: insert checksum */
    TXD_TSE = 1 << 26, /* extended */
    TXD_RS = 1 << 27,
    TXD_DEXT = 1 << 29,
    TXD_VLE = 1 << 30,
};
#define TXD_IDE 0x80000000u
enum { TXD_TYPE = 15 << 20, TXD_TYPE_DATA = 1 << 20 };
enum { TXD_CONTEXT_TCP = 1 << 24, TXD_CONTEXT_IP = 1 << 25 };
enum { TXD_POPTS_IXSM = 1, TXD_POPTS_TXSM = 2, TXD_STATUS_DD = 1 };

/* Receive descriptors (7.1): status, then errors (in extended ones from bit 20 on) */
enum {
    RXD_DD = 1 << 0,
    RXD_EOP = 1 << 1,
    RXD_IXSM = 1 << 2,
    RXD_VP = 1 << 3,
    RXD_UDPCS = 1 << 4,
    RXD_TCPCS = 1 << 5,
    RXD_IPCS = 1 << 6,
    RXD_PIF = 1 << 7,
};
enum { RXD_ERROR_TCPE = 1 << 5, RXD_ERROR_IPE = 1 << 6 };

#endif
