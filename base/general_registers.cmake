# Code beneath the translator: compiled to use general registers only (docs/design.md 9.4).
#
#   general_registers_only(LAYER [ONLY files] [EXCEPT files])   its sources, or some of them
#   general_registers_check()                                   after the last of those: the check, part of every build
#
# Where the flag is not enough the translator parks the vector registers on every way into C instead: sanitizers put
# calls of their run-time library everywhere, and other compilers than GCC do not heed base/gp_memory.h.
if(EIDOLON_SANITIZE OR NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")
    set(EIDOLON_ALWAYS_PARK ON)
    target_compile_definitions(eidolon_flags INTERFACE EIDOLON_ALWAYS_PARK=1)
endif()

function(general_registers_only layer)
    cmake_parse_arguments(ARG "" "" "ONLY;EXCEPT" ${ARGN})
    get_target_property(type ${layer} TYPE)
    if(EIDOLON_ALWAYS_PARK OR NOT type STREQUAL "STATIC_LIBRARY") # a layer without a source is INTERFACE
        return()
    endif()
    get_target_property(sources ${layer} SOURCES)
    foreach(source ${sources})
        cmake_path(GET source FILENAME name)
        if(NOT source MATCHES "\\.c$" OR name IN_LIST ARG_EXCEPT OR (ARG_ONLY AND NOT name IN_LIST ARG_ONLY))
            set_property(GLOBAL APPEND PROPERTY GENERAL_REGISTERS_OTHERS ${source})
            continue()
        endif()
        set(options -mgeneral-regs-only -include ${CMAKE_SOURCE_DIR}/base/gp_memory.h)
        if(name STREQUAL "gp_memory.c") # its loops are not to become calls of themselves
            list(APPEND options -fno-tree-loop-distribute-patterns)
        endif()
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${options}")
        set_property(GLOBAL APPEND PROPERTY GENERAL_REGISTERS_SOURCES ${source})
    endforeach()
    set_property(GLOBAL APPEND PROPERTY GENERAL_REGISTERS_LAYERS ${layer})
endfunction()

function(general_registers_check)
    if(EIDOLON_ALWAYS_PARK)
        return()
    endif()
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    get_property(layers GLOBAL PROPERTY GENERAL_REGISTERS_LAYERS)
    get_property(sources GLOBAL PROPERTY GENERAL_REGISTERS_SOURCES)
    get_property(others GLOBAL PROPERTY GENERAL_REGISTERS_OTHERS)
    list(TRANSFORM layers REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>" OUTPUT_VARIABLE objects)
    set(folder ${CMAKE_BINARY_DIR}/generated)
    file(GENERATE OUTPUT ${folder}/general_registers.txt
        CONTENT "clean\n$<JOIN:${sources},\n>\nother\n$<JOIN:${others},\n>\nobjects\n$<JOIN:${objects},\n>\n")
    add_custom_command(OUTPUT ${folder}/general_registers.stamp
        COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_SOURCE_DIR}/base/general_registers.py
            --root ${CMAKE_SOURCE_DIR} --files ${folder}/general_registers.txt --linker ${CMAKE_LINKER} --nm ${CMAKE_NM}
            --objdump ${CMAKE_OBJDUMP} --allowed ${CMAKE_SOURCE_DIR}/base/general_registers.allow
            --output ${folder}/general_registers.o
        COMMAND ${CMAKE_COMMAND} -E touch ${folder}/general_registers.stamp
        DEPENDS ${objects} ${CMAKE_SOURCE_DIR}/base/general_registers.py
            ${CMAKE_SOURCE_DIR}/base/general_registers.allow ${folder}/general_registers.txt
        COMMENT "Looking for calls and vector registers in code beneath the translator"
        VERBATIM)
    add_custom_target(general_registers ALL DEPENDS ${folder}/general_registers.stamp)
endfunction()
