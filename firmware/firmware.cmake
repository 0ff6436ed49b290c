# The DSDTs: ASL through the C preprocessor and iasl into C arrays (generated/NAME.h in the build folder).
find_program(IASL iasl REQUIRED)
set(DSDT_DIR ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${DSDT_DIR})
foreach(dsdt dsdt dsdt_pc)
    add_custom_command(
        OUTPUT ${DSDT_DIR}/${dsdt}.h
        COMMAND ${CMAKE_C_COMPILER} -E -P -x c -undef -nostdinc ${CMAKE_SOURCE_DIR}/firmware/${dsdt}.asl -o ${dsdt}.i.asl
        COMMAND sh -c "${IASL} -we -tc -p ${dsdt} ${dsdt}.i.asl > ${dsdt}.log || { cat ${dsdt}.log; exit 1; }"
        COMMAND sed "s/^unsigned char [a-z_]*/static const unsigned char ${dsdt}_aml_code/" ${dsdt}.hex > ${dsdt}.h
        WORKING_DIRECTORY ${DSDT_DIR}
        DEPENDS ${CMAKE_SOURCE_DIR}/firmware/${dsdt}.asl ${CMAKE_SOURCE_DIR}/firmware/dsdt_isa.asl
        COMMENT "Compiling the DSDT"
        VERBATIM)
endforeach()
set_source_files_properties(${CMAKE_SOURCE_DIR}/firmware/acpi.c PROPERTIES OBJECT_DEPENDS
    "${DSDT_DIR}/dsdt.h;${DSDT_DIR}/dsdt_pc.h")
