# hilora_target(NAME): the warnings, sanitizers and include root that every target of this project gets.

function(hilora_target target)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/include")
  target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wformat=2 -Wundef
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual>
    -ffp-contract=off)
  if(HILORA_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(HILORA_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${HILORA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${HILORA_SANITIZE})
  endif()
  if(HILORA_COVERAGE)
    target_compile_options(${target} PRIVATE --coverage)
    target_link_options(${target} PRIVATE --coverage)
  endif()
endfunction()
