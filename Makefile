.PHONY: lib

# The kernel library, into the source tree.
lib:
	cmake -S . -B build/lib -DCMAKE_INSTALL_PREFIX=graphscale
	cmake --build build/lib --parallel
	cmake --install build/lib
