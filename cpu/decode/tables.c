/* The one table: all rows, in the order of their maps. Constant data; read by everyone.
 * (SDM Vol. 2A-2D, APM Vol. 3.) */
#include "cpu/decode/row.h"
#include "cpu/decode/row_macros.h"

const struct insn_row insn_rows[] = {
#define ROW_MAP MAP_ONEBYTE
#include "cpu/decode/onebyte.def"
#undef ROW_MAP
#define ROW_MAP MAP_0F
#include "cpu/decode/0f.def"
#undef ROW_MAP
#define ROW_MAP MAP_0F38
#include "cpu/decode/0f38.def"
#undef ROW_MAP
#define ROW_MAP MAP_0F3A
#include "cpu/decode/0f3a.def"
#undef ROW_MAP
#define ROW_MAP MAP_X87
#include "cpu/decode/x87.def"
#undef ROW_MAP
#define ROW_MAP MAP_VEX_0F
#if __has_include("cpu/decode/vex_0f.def")
#include "cpu/decode/vex_0f.def"
#endif
#undef ROW_MAP
#define ROW_MAP MAP_VEX_0F38
#if __has_include("cpu/decode/vex_0f38.def")
#include "cpu/decode/vex_0f38.def"
#endif
#undef ROW_MAP
#define ROW_MAP MAP_VEX_0F3A
#if __has_include("cpu/decode/vex_0f3a.def")
#include "cpu/decode/vex_0f3a.def"
#endif
#undef ROW_MAP
#define ROW_MAP MAP_EVEX_0F
#if __has_include("cpu/decode/evex_0f.def")
#include "cpu/decode/evex_0f.def"
#endif
#undef ROW_MAP
#define ROW_MAP MAP_EVEX_0F38
#if __has_include("cpu/decode/evex_0f38.def")
#include "cpu/decode/evex_0f38.def"
#endif
#undef ROW_MAP
#define ROW_MAP MAP_EVEX_0F3A
#if __has_include("cpu/decode/evex_0f3a.def")
#include "cpu/decode/evex_0f3a.def"
#endif
#undef ROW_MAP
#if __has_include("cpu/decode/evex_map56.def")
#include "cpu/decode/evex_map56.def"
#endif
};

const unsigned insn_row_count = ARRAY_SIZE(insn_rows);
