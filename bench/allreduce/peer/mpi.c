/* Open MPI's turn: all-reduces float32 vectors and has rank 0 print a line of JSON for
 * each size. Arguments: sizes in bytes, separated by commas, and seconds for each. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const int least = 5, most = 5000;

static float *vector;

static double op(int n)
{
	double begun = MPI_Wtime();
	MPI_Allreduce(MPI_IN_PLACE, vector, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
	return MPI_Wtime() - begun;
}

static double cpu(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + 1e-6 * (u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void measure(long size, double seconds)
{
	int rank, n = size / 4;
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	vector = calloc(n, sizeof *vector); /* 0 stays 0, however often it is added up */
	op(n);
	double took = 0, all;
	for (int i = 0; i < 3; i++)
		took += op(n) / 3;
	MPI_Allreduce(&took, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
	int ops = seconds / all < least ? least : seconds / all > most ? most : seconds / all;
	double *times = malloc(ops * sizeof *times);
	MPI_Barrier(MPI_COMM_WORLD);
	double before = cpu();
	for (int i = 0; i < ops; i++)
		times[i] = op(n);
	double used = cpu() - before, sum;
	MPI_Allreduce(&used, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
	if (rank == 0) {
		char version[MPI_MAX_LIBRARY_VERSION_STRING];
		int length;
		MPI_Get_library_version(version, &length);
		version[strcspn(version, ",")] = 0;
		printf("{\"bytes\": %ld, \"cpu\": %.6f, \"version\": \"%s\", \"times\": [", size, sum, version);
		for (int i = 0; i < ops; i++)
			printf("%s%.9f", i ? "," : "", times[i]);
		printf("]}\n");
		fflush(stdout);
	}
	free(times);
	free(vector);
}

int main(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	double seconds = atof(argv[2]);
	for (char *s = strtok(argv[1], ","); s; s = strtok(NULL, ","))
		measure(atol(s), seconds);
	MPI_Finalize();
	return 0;
}
