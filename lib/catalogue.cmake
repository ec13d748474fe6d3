# The folder is the registry: catalogue(FOLDER) writes generated/NAME.inc with one line
# MOELORA_ENTRY(stem) for each .cpp in lib/FOLDER, sorted. A file must define `const T stem`; one that
# does not is a link error. Adding or removing a file re-runs this by itself (CONFIGURE_DEPENDS).
function(catalogue folder)
  get_filename_component(name ${folder} NAME)
  file(GLOB entries CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
  list(SORT entries)
  set(text "")
  foreach(entry ${entries})
    get_filename_component(stem ${entry} NAME_WE)
    string(APPEND text "MOELORA_ENTRY(${stem})\n")
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/generated/${name}.inc CONTENT "${text}" @ONLY)
endfunction()

# Where each entry is a folder: folder_catalogue(FLOOR NAME) lists every folder of lib/FLOOR that holds
# a FLOOR.cpp of its own (lib/engine/sglang/engine.cpp) in generated/NAME.inc, sorted.
function(folder_catalogue floor name)
  file(GLOB entries CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${floor}/*/${floor}.cpp)
  list(SORT entries)
  set(text "")
  foreach(entry ${entries})
    get_filename_component(folder ${entry} DIRECTORY)
    get_filename_component(stem ${folder} NAME)
    string(APPEND text "MOELORA_ENTRY(${stem})\n")
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/generated/${name}.inc CONTENT "${text}" @ONLY)
endfunction()
