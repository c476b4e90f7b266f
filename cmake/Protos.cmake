# Generated code goes to the build tree and is compiled without our warnings; its headers are
# system headers for who includes them.
set(QUORATE_GENERATED_DIR ${CMAKE_BINARY_DIR}/generated)

# quorate_generate(OUT_MESSAGES OUT_STUBS FILES...): the lists of the *.pb.cc and of the
# *.grpc.pb.cc files that protoc makes of the given .proto files (paths below proto/).
function(quorate_generate out_messages out_stubs)
  set(messages "")
  set(stubs "")
  file(MAKE_DIRECTORY ${QUORATE_GENERATED_DIR})
  file(GLOB_RECURSE all CONFIGURE_DEPENDS *.proto)
  foreach(file IN LISTS ARGN)
    string(REGEX REPLACE "\\.proto$" "" stem ${file})
    set(base ${QUORATE_GENERATED_DIR}/${stem})
    # Any proto may import any other; they are few and small, so each depends on all.
    add_custom_command(
      OUTPUT ${base}.pb.cc ${base}.pb.h
      COMMAND protobuf::protoc -I ${CMAKE_CURRENT_SOURCE_DIR}
              --cpp_out=${QUORATE_GENERATED_DIR} ${file}
      DEPENDS ${all} protobuf::protoc
      COMMENT "protoc ${file}" VERBATIM)
    list(APPEND messages ${base}.pb.cc)
    file(STRINGS ${file} services REGEX "^service ")
    if(services)
      add_custom_command(
        OUTPUT ${base}.grpc.pb.cc ${base}.grpc.pb.h
        COMMAND protobuf::protoc -I ${CMAKE_CURRENT_SOURCE_DIR}
                --grpc_out=${QUORATE_GENERATED_DIR}
                --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin> ${file}
        DEPENDS ${all} protobuf::protoc gRPC::grpc_cpp_plugin
        COMMENT "protoc ${file} (stubs)" VERBATIM)
      list(APPEND stubs ${base}.grpc.pb.cc)
    endif()
    # A service that comes or goes changes the lists above.
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  set(${out_messages} ${messages} PARENT_SCOPE)
  set(${out_stubs} ${stubs} PARENT_SCOPE)
endfunction()
